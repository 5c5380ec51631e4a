"""The independently recurrent network as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.indrnn import IndRNNCell
from ritornello.layers.base import About, Traits
from ritornello.layers.parts.cells import CellLayer

__all__ = ["IndRNN"]


class IndRNN(CellLayer):
    """h ← φ(W x + a ⊙ h + b): every channel sees its own past only; φ = relu or tanh.

    Args:
        width: of x and h.
        activation: φ, ``"relu"`` or ``"tanh"``.

    Source: Li et al. 2018, arXiv:1803.04831.
    """

    kind = "indrnn"
    traits = Traits(
        About(
            "IndRNN",
            "Li et al. 2018, Independently Recurrent Neural Network, arXiv:1803.04831",
            "nonlinear",
            "h ← relu(W x + a ⊙ h + b)",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, activation: str = "relu", **base: Any):
        super().__init__(width, **base)
        self.cell = IndRNNCell(width, width, activation)
        self.spec = {"width": width}
