"""DeltaNet."""

from __future__ import annotations

from typing import Any

from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import write_strength
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import RMSNorm, l2_normalize
from ritornello.transition import Delta

__all__ = ["DeltaNet"]


class DeltaNet(Layer):
    """S ← (I − β_t k_t k_tᵀ) S + β_t k_t v_tᵀ, o_t = Sᵀ q_t / √K; q, k, v through a short convolution and silu,
    ‖q‖ = ‖k‖ = 1, β = σ(W_b x); y = W_o RMSNorm(o).

    Args:
        width: of x.
        heads: of queries and keys, of about 128 channels where None.
        value_heads: a multiple of `heads`; as many where None.
        key_size: width / heads where None.
        value_size: width / value heads where None.
        conv_width: taps of the convolution.
        negative_eigenvalues: β in (0, 2): the transition's eigenvalue along k reaches −1 (state tracking).
        norm_eps: of the norm of o.

    Source: Yang et al. 2024, arXiv:2406.06484, sections 2.2 and 3.3, after Schlag et al. 2021, arXiv:2102.11174;
    negative eigenvalues: Grazzi et al. 2024, arXiv:2411.12537.
    """

    kind = "delta_net"
    traits = Traits(
        About(
            "DeltaNet",
            "Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule, arXiv:2406.06484",
            "delta rule",
            "S ← (I − β k kᵀ) S + β k vᵀ, o = Sᵀ q",
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
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size, about=128)
        self.negative_eigenvalues = negative_eigenvalues
        channels = 2 * self.size.keys + self.size.values
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        self.conv = ShortConv(channels, conv_width)
        self.beta_proj = nn.Linear(width, self.size.value_heads, bias=False)
        self.norm = RMSNorm(self.size.value_size, norm_eps)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = {**self.size.spec, "conv_width": conv_width}

    def leaves(self):
        return {"S": self.size.state(), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        qkv, window = self.conv(self.qkv_proj(x), state["conv"], call)
        q, k, v = self.size.split(qkv)
        beta = write_strength(self.beta_proj(x), self.negative_eigenvalues)
        o, S = call.solve(Delta(l2_normalize(k), v, beta), l2_normalize(q), state["S"])
        return self.out_proj(self.norm(o).flatten(-2)), {"S": S, "conv": window}
