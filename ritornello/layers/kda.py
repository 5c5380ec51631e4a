"""Kimi Delta Attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import GatedNorm, StepDecay, write_strength
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.low_rank import LowRankProjection
from ritornello.layers.parts.norm import l2_normalize
from ritornello.transition import Delta
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["KDA"]


class KDA(Layer):
    """S ← (I − β_t k_t k_tᵀ) diag(α_t) S + β_t k_t v_tᵀ, o_t = Sᵀ q_t / √K: a gated delta rule that forgets each
    channel of the key at its own speed; q, k, v through a short convolution and silu, ‖q‖ = ‖k‖ = 1;
    y = W_o (RMSNorm(o) ⊙ σ(W_g x + b)).

    log α = −e^{A_log} softplus(W_a x + dt_bias), or bounded: log α = bound · σ(e^{A_log} (W_a x + dt_bias));
    β = σ(W_b x), doubled with `negative_eigenvalues`. W_a and W_g are of low rank.

    Args:
        width: of x.
        heads: of queries and keys, of about 128 channels where None.
        value_heads: a multiple of `heads`, each with decays of its own; as many where None.
        key_size: width / heads where None.
        value_size: width / value heads where None.
        conv_width: taps of the convolution.
        gate_rank: the rank of W_a and W_g; `value_size` where None.
        gate_bias: whether there is b.
        decay_bound: the bound of log α, below 0; none where None.
        negative_eigenvalues: β in (0, 2): the transition's eigenvalue along k reaches −1 (state tracking).
        norm_eps: of the norm of o.

    Source: Kimi Team 2025, arXiv:2510.26692, eq. 1 and section 4; ranks, bound, b and initialisation as in the
    authors' code, in flash-linear-attention. The authors' own checkpoint has no b.
    """

    kind = "kda"
    traits = Traits(
        About(
            "Kimi Delta Attention",
            "Kimi Team 2025, Kimi Linear: An Expressive, Efficient Attention Architecture, arXiv:2510.26692",
            "delta rule",
            "S ← (I − β k kᵀ) diag(α) S + β k vᵀ, o = Sᵀ q",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        value_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        conv_width: int = 4,
        gate_rank: int | None = None,
        gate_bias: bool = True,
        decay_bound: float | None = None,
        negative_eigenvalues: bool = False,
        norm_eps: float = 1e-5,
        **base: Any,
    ):
        super().__init__(width, **base)
        if decay_bound is not None and decay_bound >= 0:
            raise InputError(f"`decay_bound` of {self.kind} is {decay_bound}; wanted a log decay below 0, or None.")
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size, about=128)
        self.decay_bound = decay_bound
        self.negative_eigenvalues = negative_eigenvalues
        channels, decays = 2 * self.size.keys + self.size.values, self.size.value_heads * self.size.key_size
        rank = self.size.value_size if gate_rank is None else gate_rank
        at_least(1, self.kind, gate_rank=rank)
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        self.conv = ShortConv(channels, conv_width)
        self.decay_proj = LowRankProjection(width, decays, rank)
        self.beta_proj = nn.Linear(width, self.size.value_heads, bias=False)
        self.decay = StepDecay(self.size.value_heads, size=self.size.key_size)
        if decay_bound is not None:
            nn.init.zeros_(self.decay.A_log)
        self.gate_proj = LowRankProjection(width, self.size.values, rank, bias=gate_bias)
        self.norm = GatedNorm(self.size.value_size, norm_eps, sigmoid=True)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = {**self.size.spec, "conv_width": conv_width}

    def leaves(self):
        return {"S": self.size.state(), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        qkv, window = self.conv(self.qkv_proj(x), state["conv"], call)
        q, k, v = self.size.split(qkv)
        beta = write_strength(self.beta_proj(x), self.negative_eigenvalues)
        o, S = call.solve(Delta(l2_normalize(k), v, beta, self._log_decay(x)), l2_normalize(q), state["S"])
        return self.out_proj(self.norm(o, self.gate_proj(x))), {"S": S, "conv": window}

    def _log_decay(self, x: Tensor) -> Tensor:
        a, decay, heads = self.decay_proj(x), self.decay, (self.size.value_heads, self.size.key_size)
        if self.decay_bound is None:
            return decay(a).unflatten(-1, heads)
        wide = accumulation_dtype(a.dtype)
        logits = (a.to(wide) + decay.dt_bias.to(wide)).unflatten(-1, heads)
        return self.decay_bound * torch.sigmoid(decay.A_log.to(wide).exp().unsqueeze(-1) * logits)
