"""Mamba-2."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import NormOfGated, StepDecay
from ritornello.layers.parts.sizes import heads_for, multiple
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.ops import swiglu
from ritornello.transition import Decay

__all__ = ["Mamba2"]

NORMS = ("gate_first", "gate_last", "none")


class Mamba2(Layer):
    """S ← e^{Δ_t A} S + Δ_t B_t x_tᵀ, y_t = Sᵀ C_t + D x_t, A < 0 a scalar per head; x, B, C through a short
    convolution and silu, Δ = softplus(W_Δ u + dt_bias); output W_o RMSNorm(y ⊙ silu(W_z u)), for the layer's input u.
    With ``norm="gate_last"`` it is W_o (RMSNorm(y) ⊙ silu(W_z u)), with ``"none"`` W_o (y ⊙ silu(W_z u)).

    The rows of `in_proj` stand in the order z, x, B, C, Δ of the authors' code.

    Args:
        width: of u.
        heads: of x, of about 64 channels where None.
        groups: of heads that share B and C and are normalised together, a divisor of `heads`.
        expand: channels of x for each of u.
        channels: of x; expand · width where None.
        state_size: of B and C: 128 where None, or the width where it is smaller.
        conv_width: taps of the convolution.
        bias: whether `in_proj` has one.
        out_bias: whether W_o has one.
        conv_bias: whether the convolution has one.
        norm: ``"gate_first"`` of y ⊙ silu(z), ``"gate_last"`` of y before it is gated, or ``"none"``.
        norm_eps: of that norm.
        negative_eigenvalues: the decay is 2 e^{ΔA} − 1, in (−1, 1) (state tracking).

    Source: Dao and Gu 2024, arXiv:2405.21060, sections 5 to 7; sizes and initialisation as in the authors' code;
    negative eigenvalues: Grazzi et al. 2024, arXiv:2411.12537; channels and norm as options: Zuo et al. 2025,
    arXiv:2507.22448 (Falcon-H1).
    """

    kind = "mamba2"
    traits = Traits(
        About(
            "Mamba-2",
            "Dao and Gu 2024, Transformers are SSMs, arXiv:2405.21060",
            "state space",
            "S ← e^{ΔA} S + Δ B xᵀ, y = Sᵀ C + D x",
        )
    )
    tags: ClassVar = {"D": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        groups: int = 1,
        expand: int = 2,
        state_size: int | None = None,
        channels: int | None = None,
        conv_width: int = 4,
        bias: bool = False,
        out_bias: bool = False,
        conv_bias: bool = True,
        norm: str = "gate_first",
        norm_eps: float = 1e-6,
        negative_eigenvalues: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        if norm not in NORMS:
            raise InputError(f"`norm` of {self.kind} is {norm!r}. {nearest(str(norm), NORMS)}")
        self.channels = self.inner = expand * width if channels is None else channels
        self.state_size = min(128, multiple(width, 16)) if state_size is None else state_size
        at_least(1, self.kind, expand=expand, channels=self.inner, state_size=self.state_size)
        self.heads = heads_for(self.inner) if heads is None else heads
        self.groups = groups
        self.value_size = divide(self.kind, "channels", self.inner, "heads", self.heads)
        divide(self.kind, "heads", self.heads, "groups", groups)
        self.negative_eigenvalues = negative_eigenvalues
        mixed = self.inner + 2 * groups * self.state_size
        self.in_proj = nn.Linear(width, self.inner + mixed + self.heads, bias=bias)
        self.conv = ShortConv(mixed, conv_width, bias=conv_bias)
        self.decay = StepDecay(self.heads)
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = None if norm == "none" else NormOfGated(self.inner, groups, norm_eps, norm == "gate_last")
        self.out_proj = nn.Linear(self.inner, width, bias=out_bias)
        self.spec = {
            "heads": self.heads,
            "groups": groups,
            "value_size": self.value_size,
            "state_size": self.state_size,
            "conv_width": conv_width,
        }

    def leaves(self):
        return {"S": Leaf((self.heads, self.state_size, self.value_size)), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        shared = self.groups * self.state_size
        z, xBC, a = self.in_proj(x).split([self.inner, self.inner + 2 * shared, self.heads], -1)
        xBC, window = self.conv(xBC, state["conv"], call)
        v, B, C = xBC.split([self.inner, shared, shared], -1)
        v = v.unflatten(-1, (self.heads, self.value_size))
        B, C = (t.unflatten(-1, (self.groups, self.state_size)) for t in (B, C))
        step = self.decay.step(a)
        log_decay, decay = self.decay.log(step), None
        if self.negative_eigenvalues:
            log_decay, decay = None, 2 * log_decay.exp() - 1
        written = (v * step.unsqueeze(-1)).to(v.dtype)
        y, S = call.solve(Decay(B, written, log_decay, decay, scale=1.0), C, state["S"])
        y = y + self.D.to(y.dtype).unsqueeze(-1) * v
        y = y.flatten(-2)
        y = swiglu(z, y) if self.norm is None else self.norm(y, z)
        return self.out_proj(y), {"S": S, "conv": window}
