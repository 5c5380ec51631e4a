"""Aaren: softmax attention as a recurrence, by queries that do not depend on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.sizes import heads_for
from ritornello.transition import Softmax

__all__ = ["Aaren"]


class Aaren(Layer):
    """o_t = Σ_{s ≤ t} softmax_s(q · k_s / √K) v_s with one learned query q per head; y = W_o o.

    The state is (m, u, w): the largest score so far, Σ e^{score − m} v and Σ e^{score − m}: of one size, and exact.

    Args:
        width: of x.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None.

    Source: Feng et al. 2024, arXiv:2405.13956, section 3. The queries start standard normal.
    """

    kind = "aaren"
    traits = Traits(
        About(
            "Aaren",
            "Feng et al. 2024, Attention as an RNN, arXiv:2405.13956",
            "softmax",
            "o_t = Σ_{s ≤ t} softmax_s(q · k_s / √K) v_s, q learned",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        kv_heads: int | None = None,
        key_size: int | None = None,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.heads = heads_for(width) if heads is None else heads
        self.kv_heads = self.heads if kv_heads is None else kv_heads
        self.repeats = divide(self.kind, "heads", self.heads, "kv_heads", self.kv_heads)
        self.key_size = divide(self.kind, "width", width, "heads", self.heads) if key_size is None else key_size
        at_least(1, self.kind, key_size=self.key_size)
        self.query = nn.Parameter(torch.randn(self.heads, self.key_size))
        self.kv_proj = nn.Linear(width, 2 * self.kv_heads * self.key_size, bias=False)
        self.out_proj = nn.Linear(self.heads * self.key_size, width, bias=False)
        self.spec = {"heads": self.heads, "key_size": self.key_size}

    def leaves(self):
        one = Leaf((self.heads,))
        return {"m": Leaf((self.heads,), fill=float("-inf")), "u": Leaf((self.heads, self.key_size)), "w": one}

    def mix(self, x, state, call: Call):
        k, v = self.kv_proj(x).unflatten(-1, (2, self.kv_heads, self.key_size)).unbind(2)
        wide = state["w"].dtype
        query = self.query.to(wide).unflatten(0, (self.kv_heads, self.repeats)) / self.key_size**0.5
        logits = torch.einsum("btgk,grk->btgr", k.to(wide), query).flatten(2)
        # m is a free scale: what moves it moves u and w along, so that no gradient goes through it.
        start = state["m"].detach(), state["u"], state["w"]
        o, (m, u, w) = call.solve(Softmax(logits, v.repeat_interleave(self.repeats, 2)), None, start)
        return self.out_proj(o.to(x.dtype).flatten(2)), {"m": m, "u": u, "w": w}

    def canonical(self, leaves):
        """The sums themselves, u·eᵐ and w·eᵐ: the state holds them up to a scale."""
        scale = leaves["m"].detach().exp()
        return {"u": leaves["u"] * scale.unsqueeze(-1), "w": leaves["w"] * scale}
