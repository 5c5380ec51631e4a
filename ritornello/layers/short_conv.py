"""The gated short convolution of LFM2."""

from __future__ import annotations

from typing import Any

from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.conv import ShortConv as Convolution

__all__ = ["ShortConv"]


class ShortConv(Layer):
    """y = W_o (c ⊙ conv(b ⊙ x)) with b, c, x = W_i u for the layer's input u: a depthwise causal convolution between
    two gates. The state is the convolution's window.

    The rows of `in_proj` stand in the order b, c, x of the authors' code.

    Args:
        width: of u.
        conv_width: taps of the convolution.
        bias: whether the projections and the convolution have one.

    Source: Liquid AI 2025, LFM2 Technical Report, arXiv:2511.23404; three taps as in its released models.
    """

    kind = "short_conv"
    traits = Traits(
        About(
            "Gated short convolution (LFM2)",
            "Liquid AI 2025, LFM2 Technical Report, arXiv:2511.23404",
            "convolution",
            "y = W_o (c ⊙ conv(b ⊙ x)), b, c, x = W_i u",
        ),
        growth="window",
    )

    def __init__(self, width: int, *, conv_width: int = 3, bias: bool = False, **base: Any):
        super().__init__(width, **base)
        self.in_proj = nn.Linear(width, 3 * width, bias=bias)
        self.conv = Convolution(width, conv_width, bias=bias, activation=None)
        self.out_proj = nn.Linear(width, width, bias=bias)
        self.spec = {"conv_width": conv_width}

    def leaves(self):
        return {"conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        before, after, inner = self.in_proj(x).chunk(3, -1)
        y, window = self.conv(before * inner, state["conv"], call)
        return self.out_proj(after * y), {"conv": window}
