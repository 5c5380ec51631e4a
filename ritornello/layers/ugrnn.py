"""The update gate RNN as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.ugrnn import UGRNNCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer

__all__ = ["UGRNN"]


class UGRNN(CellLayer):
    """h ← g ⊙ h + (1 − g) ⊙ tanh(W_c x + R_c h + b_c), g = σ(W_g x + R_g h + b_g).

    Args:
        width: of x and h.
        heads: blocks of the recurrent matrix; 1: dense.
        gate_bias: the first value of b_g; the larger it is, the longer the first memory.

    Source: Collins et al. 2017, arXiv:1611.09913.
    """

    kind = "ugrnn"
    traits = Traits(
        About(
            "UGRNN",
            "Collins et al. 2017, Capacity and Trainability in Recurrent Neural Networks, arXiv:1611.09913",
            "nonlinear",
            "h ← g ⊙ h + (1 − g) ⊙ tanh(W_c x + R_c h), g = σ(W x + R h)",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int = 1, gate_bias: float = 1.0, **base: Any):
        super().__init__(width, **base)
        divide(self.kind, "width", width, "heads", heads)
        self.cell = UGRNNCell(width, width, heads, gate_bias)
        self.spec = {"width": width}
