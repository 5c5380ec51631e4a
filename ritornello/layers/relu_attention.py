"""ReLU attention."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.attention import cropped
from ritornello.layers.parts.cached_heads import CachedHeads
from ritornello.typing import Tensor

__all__ = ["ReLUAttention"]


class ReLUAttention(Layer):
    """o_t = Σ_{s ≤ t} relu(q_t · k_s / √K) v_s / (γ √(n / 2)) over the n = t + 1 steps so far, queries and keys turned
    by their position; y = W_o o. Scores of unit variance would make Σ relu² = n / 2: o keeps its size as n grows.

    No weight is lost to the others: a step may read many keys, or none. The state is the cache of keys and values.

    Args:
        width: of x.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None. Even.
        gamma: γ.
        rope_base: of the rotary frequencies.

    Source: Shen et al. 2023, arXiv:2302.06461 (ReLUFormer), without its loss; rotary positions, arXiv:2104.09864.
    """

    kind = "relu_attention"
    traits = Traits(
        About(
            "ReLU attention",
            "Shen et al. 2023, A Study on ReLU and Softmax in Transformer, arXiv:2302.06461",
            "attention",
            "o_t = Σ_{s ≤ t} relu(q_t · k_s / √K) v_s / (γ √(n / 2)), n = t + 1",
        ),
        growth="linear",
        affine=False,
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        kv_heads: int | None = None,
        key_size: int | None = None,
        gamma: float = 1.0,
        rope_base: float = 10_000.0,
        **base: Any,
    ):
        super().__init__(width, **base)
        if not gamma > 0:
            raise InputError(f"`gamma` of {self.kind} is {gamma}; wanted a positive number.")
        self.gamma = gamma
        self.attention = CachedHeads(self.kind, width, heads, kv_heads, key_size, rope_base)
        self.spec = self.attention.sizes

    def leaves(self):
        return self.attention.leaves()

    def canonical(self, leaves):
        return cropped(leaves, "k", "v")

    def mix(self, x, state, call: Call):
        call.demand_fused(self.kind)
        return self.attention(x, state, call, self._weigh)

    def _weigh(self, scores: Tensor, back: Tensor) -> Tensor:
        count = (back[..., :1] + 1).to(scores.dtype)  # the first key lies as many steps back as came before
        return F.relu(scores).masked_fill(back < 0, 0.0) / (self.gamma * (count / 2).sqrt())
