"""URPE attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.attention import cropped
from ritornello.layers.parts.cached_heads import CachedHeads
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.typing import Tensor

__all__ = ["URPEAttention"]


class URPEAttention(Layer):
    """o_t = Σ_{s ≤ t} c_{t−s} softmax_s(q_t · k_s / √K) v_s: the softmax is multiplied by a number for each distance,
    per head; queries and keys are turned by their position; y = W_o o.

    The rows of a softmax sum to one, whatever positions are told inside it, and where all values are alike nothing can
    be said of a place; with c it can. The state is the cache of keys and values.

    Args:
        width: of x.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None. Even.
        distances: how many numbers c has; steps that lie further back share the last one.
        rope_base: of the rotary frequencies.

    Source: Luo et al. 2022, arXiv:2205.13401, with rotary positions, arXiv:2104.09864, inside the softmax; c starts at
    1, as in the authors' code.
    """

    kind = "urpe_attention"
    traits = Traits(
        About(
            "URPE attention",
            "Luo et al. 2022, Your Transformer May Not be as Powerful as You Expect, arXiv:2205.13401",
            "attention",
            "o_t = Σ_{s ≤ t} c_{t−s} softmax_s(q_t · k_s / √K) v_s",
        ),
        growth="linear",
        affine=False,
    )
    tags: ClassVar = {"scale": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        kv_heads: int | None = None,
        key_size: int | None = None,
        distances: int = 512,
        rope_base: float = 10_000.0,
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, distances=distances)
        self.attention = CachedHeads(self.kind, width, heads, kv_heads, key_size, rope_base)
        self.scale = nn.Parameter(torch.ones(self.attention.heads, distances))
        self.spec = self.attention.sizes

    def leaves(self):
        return self.attention.leaves()

    def canonical(self, leaves):
        return cropped(leaves, "k", "v")

    def mix(self, x, state, call: Call):
        call.demand_fused(self.kind)
        return self.attention(x, state, call, self._weigh)

    def _weigh(self, scores: Tensor, back: Tensor) -> Tensor:
        ahead = back < 0
        by_distance = self.scale.to(scores.dtype)[:, back[:, 0].clamp(0, self.scale.shape[1] - 1)].movedim(0, 1)
        return scores.masked_fill(ahead, float("-inf")).softmax(-1).masked_fill(ahead, 0.0) * by_distance
