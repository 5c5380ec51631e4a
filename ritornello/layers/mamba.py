"""Mamba, the selective state space model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import inverse_softplus_of_steps
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY
from ritornello.ops import rms_norm, swiglu
from ritornello.transition import Selective

__all__ = ["Mamba"]


class Mamba(Layer):
    """h ← e^{Δ_t A} ⊙ h + Δ_t x_t B_tᵀ, y_t = h C_t + D x_t, A < 0 one for each channel and state; x through a short
    convolution and silu, Δ = softplus(W_Δ r + dt_bias) with r, B, C = W x; output W_o (y ⊙ silu(z)) with x, z = W_in u.

    Args:
        width: of u, the layer's input.
        expand: channels of x for each of u.
        state_size: of B and C.
        dt_rank: of r, the low rank of Δ; ⌈width / 16⌉ where None.
        conv_width: taps of the convolution.
        bias: whether the input and output projections have one.
        conv_bias: whether the convolution has one.
        norm_eps: of RMS norms on r, B and C; no norms where None.
        norm_weights: whether those have weights, as in Jamba, or none, as in Falcon-Mamba.
        negative_eigenvalues: the decay is 2 e^{ΔA} − 1, in (−1, 1) (state tracking).

    Source: Gu and Dao 2023, arXiv:2312.00752, algorithm 2 and section 3.4; sizes and initialisation as in the authors'
    code (A = −1, …, −N; Δ log-uniform in [0.001, 0.1]); negative eigenvalues: Grazzi et al. 2024, arXiv:2411.12537;
    norms: Lieber et al. 2024, arXiv:2403.19887 (Jamba), Zuo et al. 2024, arXiv:2410.05355 (Falcon Mamba).
    """

    kind = "mamba"
    traits = Traits(
        About(
            "Mamba",
            "Gu and Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752",
            "state space",
            "h ← e^{ΔA} ⊙ h + Δ x Bᵀ, y = h C + D x",
        )
    )
    tags: ClassVar = {
        "A_log": (NO_WEIGHT_DECAY, KEEP_FLOAT32),
        "dt_bias": (NO_WEIGHT_DECAY, KEEP_FLOAT32),
        "D": (NO_WEIGHT_DECAY,),
    }

    def __init__(
        self,
        width: int,
        *,
        expand: int = 2,
        state_size: int = 16,
        dt_rank: int | None = None,
        conv_width: int = 4,
        bias: bool = False,
        conv_bias: bool = True,
        norm_eps: float | None = None,
        norm_weights: bool = False,
        negative_eigenvalues: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.dt_rank = -(-width // 16) if dt_rank is None else dt_rank
        if norm_weights and norm_eps is None:
            raise InputError("`norm_weights` of mamba are of norms that `norm_eps` = None leaves out: give their eps.")
        at_least(1, self.kind, expand=expand, state_size=state_size, dt_rank=self.dt_rank)
        self.inner, self.state_size = expand * width, state_size
        self.norm_eps, self.negative_eigenvalues = norm_eps, negative_eigenvalues
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=bias)
        self.conv = ShortConv(self.inner, conv_width, bias=conv_bias)
        self.x_proj = nn.Linear(self.inner, self.dt_rank + 2 * state_size, bias=False)
        if norm_weights:
            for name, size in (("rank_norm", self.dt_rank), ("B_norm", state_size), ("C_norm", state_size)):
                self.register_parameter(name, nn.Parameter(torch.ones(size)))
        self.dt_proj = nn.Linear(self.dt_rank, self.inner, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        self.dt_bias = nn.Parameter(inverse_softplus_of_steps(self.inner))
        self.A_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=bias)
        self.spec = {"channels": self.inner, "state_size": state_size, "conv_width": conv_width}

    def leaves(self):
        return {"h": Leaf((self.inner, self.state_size)), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        x, z = self.in_proj(x).chunk(2, -1)
        x, window = self.conv(x, state["conv"], call)
        rank, B, C = self.x_proj(x).split([self.dt_rank, self.state_size, self.state_size], -1)
        if self.norm_eps is not None:
            weights = (getattr(self, f"{name}_norm", None) for name in ("rank", "B", "C"))
            rank, B, C = (rms_norm(t, w, eps=self.norm_eps) for t, w in zip((rank, B, C), weights, strict=True))
        wide = state["h"].dtype
        delta = F.softplus(self.dt_proj(rank).to(wide) + self.dt_bias.to(wide)).to(x.dtype)
        A, D = -self.A_log.to(wide).exp(), self.D.to(wide)
        y, h = call.solve(Selective(x, delta, B, A, D, self.negative_eigenvalues), (C, x), state["h"])
        return self.out_proj(swiglu(z, y.to(x.dtype))), {"h": h, "conv": window}
