"""The quasi-recurrent network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.cells.qrnn import QRNNCell
from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least

__all__ = ["QRNN"]

GATES = {"f": 2, "fo": 3, "ifo": 4}


class QRNN(Layer):
    """c ← f_t ⊙ c + (1 − f_t) ⊙ z_t, y_t = o_t ⊙ c; z = tanh(·), f and o = σ(·) of one causal convolution of x, in
    which all channels meet.

    Args:
        width: of x and y.
        conv_width: taps of the convolution.
        pooling: ``"fo"``; ``"f"`` without o, ``"ifo"`` with an input gate i = σ(·) in place of 1 − f.

    Source: Bradbury et al. 2016, arXiv:1611.01576, sections 2 and 2.1; biases as in nn.Linear.
    """

    kind = "qrnn"
    traits = Traits(
        About(
            "QRNN",
            "Bradbury et al. 2016, Quasi-Recurrent Neural Networks, arXiv:1611.01576",
            "diagonal",
            "c ← f ⊙ c + (1 − f) ⊙ z, y = o ⊙ c; z, f, o = tanh, σ, σ of W ∗ x",
        )
    )

    def __init__(self, width: int, *, conv_width: int = 2, pooling: str = "fo", **base: Any):
        super().__init__(width, **base)
        at_least(1, self.kind, conv_width=conv_width)
        if pooling not in GATES:
            raise InputError(f"`pooling` of {self.kind} is {pooling!r}. {nearest(str(pooling), GATES)}")
        self.gates, self.conv_width = GATES[pooling], conv_width
        self.in_proj = nn.Linear(conv_width * width, self.gates * width)  # the present first, then ever older inputs
        self.cell = QRNNCell(width)
        self.spec = {"width": width, "conv_width": conv_width}

    def leaves(self):
        return {"h": Leaf((self.width,)), "past": Leaf((self.conv_width - 1, self.width), "input")}

    def mix(self, x, state, call: Call):
        taps, past = [x], []
        for previous in state["past"].unbind(1):  # the newest first
            tap, last = call.sequence.shift(taps[-1], previous)
            taps.append(tap)
            past.append(last)
        u = self.in_proj(torch.cat(taps, -1)).unflatten(-1, (self.gates, self.width))
        y, h = call.run(self.cell, u, state["h"])
        return y, {"h": h, "past": torch.stack(past, 1) if past else state["past"]}
