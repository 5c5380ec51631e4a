"""M²RNN."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.cells.m2rnn import M2RNNCell
from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import NormOfGated, StepDecay
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY

__all__ = ["M2RNN"]


class M2RNN(Layer):
    """S ← f_t S + (1 − f_t) tanh(S W + k_t v_tᵀ), o_t = Sᵀ q_t + D ⊙ v_t; q, k, v through a short convolution and silu,
    f = exp(−e^{A_log} softplus(W_f x + dt_bias)) one for each head; y = W_o RMSNorm(o ⊙ silu(W_g x)).

    Args:
        width: of x.
        heads: of queries and keys, of about 64 channels where None.
        value_heads: a multiple of `heads`; as many where None.
        key_size: width / heads where None.
        value_size: width / value heads where None; W is (value_size, value_size) for each head.
        conv_width: taps of the convolution.

    Source: Mishra et al. 2026, arXiv:2603.14360; block and initialisation (W = 1, D = 1) as in the authors' code.
    """

    kind = "m2rnn"
    traits = Traits(
        About(
            "M²RNN",
            "Mishra et al. 2026, M²RNN: Non-Linear RNNs with Matrix-Valued States, arXiv:2603.14360",
            "nonlinear",
            "S ← f S + (1 − f) tanh(S W + k vᵀ), o = Sᵀ q + D ⊙ v",
        ),
        affine=False,
    )
    tags: ClassVar = {"D": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        value_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        conv_width: int = 4,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size)
        channels, values = 2 * self.size.keys + self.size.values, self.size.values
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.f_proj = nn.Linear(width, self.size.value_heads, bias=False)
        self.conv = ShortConv(channels, conv_width)
        self.decay = StepDecay(self.size.value_heads, low=0.01)  # theirs is 0, whose logarithm is −∞
        self.cell = M2RNNCell(self.size.value_heads, self.size.key_size, self.size.value_size)
        self.D = nn.Parameter(torch.ones(self.size.value_heads, self.size.value_size))
        self.norm = NormOfGated(values)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.spec = {**self.size.spec, "conv_width": conv_width}

    def leaves(self):
        return {"S": self.size.state(), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        qkv, window = self.conv(self.qkv_proj(x), state["conv"], call)
        q, k, v = self.size.split(qkv)
        keep = self.decay(self.f_proj(x)).exp()
        o, S = call.run(self.cell, (q, k, v, keep), state["S"])
        o = (o + self.D.to(o.dtype) * v).flatten(-2)
        return self.out_proj(self.norm(o, self.gate_proj(x))), {"S": S, "conv": window}
