"""The LSTM with peepholes as a layer, and the eight that are it but for one part."""

from __future__ import annotations

from typing import Any

from ritornello.cells.peephole_lstm import PeepholeLSTMCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer

__all__ = ["PeepholeLSTM"]


class PeepholeLSTM(CellLayer):
    """c ← f ⊙ c + i ⊙ tanh(z), h = o ⊙ tanh c; i and f also look at the old c, o at the new one,
    each channel at its own.

    Args:
        width: of x and h.
        heads: blocks of the recurrent matrix; 1: dense.
        variant: ``"vanilla"``, or one with a part changed: ``"nig"``, ``"nfg"``, ``"nog"`` (no input, forget, output
            gate), ``"niaf"``, ``"noaf"`` (no input, output activation), ``"cifg"`` (f = 1 − i), ``"np"`` (no
            peepholes), ``"fgr"`` (gates see gates).

    Source: Greff et al. 2015, arXiv:1503.04069.
    """

    kind = "peephole_lstm"
    traits = Traits(
        About(
            "Peephole LSTM",
            "Greff et al. 2015, LSTM: A Search Space Odyssey, arXiv:1503.04069",
            "nonlinear",
            "c ← σ(i + p_i ⊙ c) ⊙ tanh(z) + σ(f + p_f ⊙ c) ⊙ c; h = σ(o + p_o ⊙ c) ⊙ tanh c; i, f, z, o = W x + R h",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int = 1, variant: str = "vanilla", **base: Any):
        super().__init__(width, **base)
        divide(self.kind, "width", width, "heads", heads)
        self.cell = PeepholeLSTMCell(width, width, heads, variant)
        self.spec = {"width": width, "variant": variant}
        self.names = ("h", "c", "i", "f", "o")[: self.cell.states]
