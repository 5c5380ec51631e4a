"""The bilinear recurrence as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.bilinear import BilinearCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer
from ritornello.layers.parts.sizes import heads_for

__all__ = ["Bilinear"]


class Bilinear(CellLayer):
    """h ← A(x) h / ‖A(x) h‖, A(x) an affine function of x, block-diagonal: the input chooses the map of the state, and
    nothing is added to it.

    Args:
        width: of x and h.
        heads: blocks of A and of h, of about 8 channels where None; 1: dense, with width³ weights.

    Source: Ebrahimi and Memisevic 2025, arXiv:2505.21749.
    """

    kind = "bilinear"
    traits = Traits(
        About(
            "Bilinear RNN",
            "Ebrahimi and Memisevic 2025, Revisiting Bi-Linear State Transitions in RNNs, arXiv:2505.21749",
            "nonlinear",
            "h ← A(x) h / ‖A(x) h‖, A(x)_{ij} = B_{ij} + Σ_k W_{ijk} x_k",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int | None = None, **base: Any):
        super().__init__(width, **base)
        heads = heads_for(width, 8) if heads is None else heads
        divide(self.kind, "width", width, "heads", heads)
        self.cell = BilinearCell(width, width, heads)
        self.spec = {"width": width, "heads": heads}
