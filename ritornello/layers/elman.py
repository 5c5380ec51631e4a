"""Elman's simple recurrent network as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.elman import ElmanCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer

__all__ = ["Elman"]


class Elman(CellLayer):
    """h ← φ(W x + R h + b), φ = tanh or relu: the equations of ``torch.nn.RNN``.

    Args:
        width: of x and h.
        heads: blocks of the recurrent matrix; 1: dense.
        activation: φ, ``"tanh"`` or ``"relu"``.

    Source: Elman 1990, "Finding structure in time".
    """

    kind = "elman"
    traits = Traits(
        About(
            "Elman network",
            "Elman 1990, Finding Structure in Time, Cognitive Science 14(2)",
            "nonlinear",
            "h ← tanh(W x + R h + b)",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int = 1, activation: str = "tanh", **base: Any):
        super().__init__(width, **base)
        divide(self.kind, "width", width, "heads", heads)
        self.cell = ElmanCell(width, width, heads, activation)
        self.spec = {"width": width}
