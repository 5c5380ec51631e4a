"""The GRU as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.gru import GRUCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer

__all__ = ["GRU"]


class GRU(CellLayer):
    """h ← (1 − z) ⊙ tanh(n + r ⊙ n_h) + z ⊙ h, gates r, z and both parts of n from W x + R h + b: the equations of
    ``torch.nn.GRU``.

    Args:
        width: of x and h.
        heads: blocks of the recurrent matrix; 1: dense, as in ``torch.nn.GRU``.

    Source: Cho et al. 2014, arXiv:1406.1078, with the reset after the product as in ``torch.nn.GRU``.
    """

    kind = "gru"
    traits = Traits(
        About(
            "GRU",
            "Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, arXiv:1406.1078",
            "nonlinear",
            "h ← (1 − z) ⊙ tanh(W_n x + r ⊙ R_n h) + z ⊙ h; r, z = σ(W x + R h + b)",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int = 1, **base: Any):
        super().__init__(width, **base)
        divide(self.kind, "width", width, "heads", heads)
        self.cell = GRUCell(width, width, heads)
        self.spec = {"width": width}
