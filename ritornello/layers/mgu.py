"""The minimal gated unit as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.mgu import MGUCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer

__all__ = ["MGU"]


class MGU(CellLayer):
    """h ← (1 − f) ⊙ h + f ⊙ tanh(W_n x + R_n (f ⊙ h) + b_n), f = σ(W_f x + R_f h + b_f): a GRU whose two gates are one.

    Args:
        width: of x and h.
        heads: blocks of the recurrent matrix; 1: dense.

    Source: Zhou et al. 2016, arXiv:1603.09420.
    """

    kind = "mgu"
    traits = Traits(
        About(
            "MGU",
            "Zhou et al. 2016, Minimal Gated Unit for Recurrent Neural Networks, arXiv:1603.09420",
            "nonlinear",
            "h ← (1 − f) ⊙ h + f ⊙ tanh(W_n x + R_n (f ⊙ h)), f = σ(W x + R h)",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int = 1, **base: Any):
        super().__init__(width, **base)
        divide(self.kind, "width", width, "heads", heads)
        self.cell = MGUCell(width, width, heads)
        self.spec = {"width": width}
