"""BASED's linear attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.heads import Heads
from ritornello.transition import Decay
from ritornello.typing import Tensor

__all__ = ["Based", "taylor"]


def taylor(x: Tensor) -> Tensor:
    """φ with φ(q) · φ(k) = 1 + s + s²/2 for s = q · k / √K: (..., K) → (..., 1 + K + K (K + 1) / 2).

    The products x_i x_j and x_j x_i stand once, √2 times as large.
    """
    size = x.shape[-1]
    i, j = torch.triu_indices(size, size, 1, device=x.device)
    pairs, squares = x[..., i] * x[..., j], x.square() * 2**-0.5
    return torch.cat([torch.ones_like(x[..., :1]), x * size**-0.25, squares * size**-0.5, pairs * size**-0.5], -1)


class Based(Layer):
    """S ← S + φ(k_t) v_tᵀ, z ← z + φ(k_t), o_t = Sᵀφ(q_t) / φ(q_t)·z, where φ(q)·φ(k) = 1 + s + s²/2 is the Taylor
    polynomial of eˢ, s = q · k / √K; y = W_o o.

    The other half of BASED is attention over a short window: alternate this with ``("attention", {"window": 64})``. z
    stands in the state as one more column of S, written by a value that is always 1.

    Args:
        width: of x.
        heads: of queries and keys, of about 64 values each where None.
        value_heads: a multiple of `heads`; as many where None.
        key_size: K; φ has 1 + K + K (K + 1) / 2 features.
        value_size: width / value heads where None.

    Source: Arora et al. 2024, arXiv:2402.18668, section 4.1. The authors' code divides by φ(q)·z + 10⁻¹²; φ(q)·φ(k) is
    never below ½.
    """

    kind = "based"
    traits = Traits(
        About(
            "BASED",
            "Arora et al. 2024, Simple linear attention language models balance the recall-throughput tradeoff, "
            "arXiv:2402.18668",
            "linear attention",
            "S ← S + φ(k) vᵀ, z ← z + φ(k), o = Sᵀφ(q) / φ(q)·z, φ(q)·φ(k) = 1 + s + s²/2",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        value_heads: int | None = None,
        key_size: int = 16,
        value_size: int | None = None,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size)
        features = 1 + key_size + key_size * (key_size + 1) // 2
        self.memory = replace(self.size, key_size=features)
        self.qkv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = self.size.spec

    def leaves(self):
        return {"S": self.memory.state(columns=1)}

    def mix(self, x, state, call: Call):
        q, k, v = self.size.split(self.qkv_proj(x))
        o, S = call.solve(Decay(taylor(k), F.pad(v, (0, 1), value=1.0), scale=1.0), taylor(q), state["S"])
        # Only beyond the last packed sequence is the sum below ½.
        o = o[..., :-1] / o[..., -1:].clamp(min=0.5)
        return self.out_proj(o.flatten(-2)), {"S": S}
