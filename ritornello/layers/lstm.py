"""The LSTM as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.lstm import LSTMCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer

__all__ = ["LSTM"]


class LSTM(CellLayer):
    """c ← f ⊙ c + i ⊙ tanh(g), h = o ⊙ tanh c, gates from W x + R h + b: the equations of ``torch.nn.LSTM``.

    Args:
        width: of x and h.
        heads: blocks of the recurrent matrix; 1: dense, as in ``torch.nn.LSTM``.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate).
    """

    kind = "lstm"
    traits = Traits(
        About(
            "LSTM",
            "Hochreiter and Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8)",
            "nonlinear",
            "c ← σ(f) ⊙ c + σ(i) ⊙ tanh(g); h = σ(o) ⊙ tanh c; i, f, g, o = W x + R h + b",
        ),
        affine=False,
    )
    names = ("h", "c")

    def __init__(self, width: int, *, heads: int = 1, **base: Any):
        super().__init__(width, **base)
        divide(self.kind, "width", width, "heads", heads)
        self.cell = LSTMCell(width, width, heads)
        self.spec = {"width": width}
