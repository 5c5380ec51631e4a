"""Gated DeltaNet."""

from __future__ import annotations

from typing import Any

from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import GatedNorm, StepDecay, write_strength
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import l2_normalize
from ritornello.transition import Delta

__all__ = ["GatedDeltaNet"]


class GatedDeltaNet(Layer):
    """S ← α_t (I − β_t k_t k_tᵀ) S + β_t k_t v_tᵀ, o_t = Sᵀ q_t / √K; q, k, v through a short convolution, ‖q‖ = ‖k‖ =
    1; y = W_o (RMSNorm(o) ⊙ silu(W_g x)).

    α = exp(−e^{A_log} softplus(W_a x + dt_bias)), β = σ(W_b x), doubled with `negative_eigenvalues`.

    Args:
        width: of x.
        heads: of queries and keys.
        value_heads: a multiple of `heads`; as many where None.
        key_size: ¾ · width / heads where None, rounded to a multiple of 16.
        value_size: 2 · key_size where None.
        conv_width: taps of the convolution.
        negative_eigenvalues: β in (0, 2): the transition's eigenvalue along k reaches −1 (state tracking).
        norm_eps: of the norm of o.

    Source: Yang, Kautz, Hatamizadeh 2024, arXiv:2412.06464, eq. 10 and figure 1; sizes and initialisation as in the
    authors' code; negative eigenvalues: Grazzi et al. 2024, arXiv:2411.12537.
    """

    kind = "gated_delta_net"
    traits = Traits(
        About(
            "Gated DeltaNet",
            "Yang et al. 2024, Gated Delta Networks, arXiv:2412.06464",
            "delta rule",
            "S ← α (I − β k kᵀ) S + β k vᵀ, o = Sᵀ q",
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
        negative_eigenvalues: bool = False,
        norm_eps: float = 1e-5,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.with_wide_values(self.kind, width, heads, value_heads, key_size, value_size)
        self.negative_eigenvalues = negative_eigenvalues
        channels, values = 2 * self.size.keys + self.size.values, self.size.values
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.ab_proj = nn.Linear(width, 2 * self.size.value_heads, bias=False)
        self.conv = ShortConv(channels, conv_width)
        self.decay = StepDecay(self.size.value_heads, low=0.01)  # theirs is 0, whose logarithm is −∞
        self.norm = GatedNorm(self.size.value_size, norm_eps)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.spec = {**self.size.spec, "conv_width": conv_width}

    def leaves(self):
        return {"S": self.size.state(), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        qkv, window = self.conv(self.qkv_proj(x), state["conv"], call)
        q, k, v = self.size.split(qkv)
        q, k = l2_normalize(q), l2_normalize(k)
        a, b = self.ab_proj(x).chunk(2, -1)
        beta = write_strength(b, self.negative_eigenvalues)
        o, S = call.solve(Delta(k, v, beta, self.decay(a)), q, state["S"])
        return self.out_proj(self.norm(o, self.gate_proj(x))), {"S": S, "conv": window}
