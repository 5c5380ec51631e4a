"""The sLSTM."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.cells.slstm import SLSTMCell
from ritornello.layers.base import About, Call, Layer, Traits, divide
from ritornello.layers.parts.cells import cell_leaves, run_cell
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.norm import norm_of_heads
from ritornello.layers.parts.sizes import heads_for

__all__ = ["SLSTM"]


class SLSTM(Layer):
    """c ← σ(f) c + e^i tanh z, n ← σ(f) n + e^i, h = σ(o) c / n, with i, f = W x' + R h + b and z, o = W x + R h + b,
    x' = silu of a short convolution of x; W and R mix within heads; y = LayerNorm(h), each head for itself.

    The state holds c e^{−m} and n e^{−m}, m the largest exponent so far.

    Args:
        width: of x and h.
        heads: of about 64 channels where None.
        conv_width: taps of the convolution.

    Source: Beck et al. 2024, arXiv:2405.04517, section 2.2 and figure 9; initialisation as in the authors' code.
    """

    kind = "slstm"
    names = ("h", "c", "n", "m")
    traits = Traits(
        About(
            "sLSTM",
            "Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517",
            "nonlinear",
            "c ← σ(f) c + eⁱ tanh z, n ← σ(f) n + eⁱ, h = σ(o) c / n; i, f, z, o = W x + R h",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, heads: int | None = None, conv_width: int = 4, **base: Any):
        super().__init__(width, **base)
        self.heads = heads_for(width) if heads is None else heads
        divide(self.kind, "width", width, "heads", self.heads)
        self.conv = ShortConv(width, conv_width, bias=True)
        self.cell = SLSTMCell(width, width, self.heads)
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.spec = {"width": width, "conv_width": conv_width}

    def leaves(self):
        return {**cell_leaves(self.cell, self.names), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        seen, window = self.conv(x, state["conv"], call)
        # m is a free scale: what moves it moves c and n along, so that no gradient goes through it.
        start = {**state, "m": state["m"].detach()}
        y, new = run_cell(call, self.cell, self.names, (seen, x), start)
        y = norm_of_heads(y.unflatten(-1, (self.heads, -1)), self.norm_weight, None, 1e-5)
        return y, {**new, "conv": window}

    def canonical(self, leaves):
        """The memory itself, c·eᵐ and n·eᵐ: the state holds it up to a scale."""
        scale = leaves["m"].exp()
        return {"h": leaves["h"], "c": leaves["c"] * scale, "n": leaves["n"] * scale, "conv": leaves["conv"]}
