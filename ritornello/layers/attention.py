"""Softmax attention, with rotary positions, grouped heads and an optional sliding window."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.errors import BackendError, InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, divide
from ritornello.layers.parts.attention import attend, attend_window, grow_cache, slide_window
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.rotary import rotate
from ritornello.layers.parts.sizes import heads_for
from ritornello.method import Auto, Fused

__all__ = ["Attention"]


class Attention(Layer):
    """o_t = Σ_{s ≤ t} softmax_s(q_t · k_s / √K) v_s over the last `window` steps, queries and keys turned by their
    position.

    The state is the cache of keys and values: of the last window − 1 steps, or of all of them. Then it grows; given
    away (``donate=True``) it is written in place and grows by doubling.

    Args:
        width: of x.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None. Even.
        window: how many steps are seen, the present one included; all of them where None.
        rope_base: of the rotary frequencies.
        bias: whether the projections of q, k, v have one.
        qk_norm: RMSNorm on queries and keys, per head.

    Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rotary positions); Ainslie et al.
    2023, arXiv:2305.13245 (grouped heads); Beltagy et al. 2020, arXiv:2004.05150 (window).
    """

    kind = "attention"
    traits = Traits(
        About(
            "Softmax attention",
            "Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762",
            "attention",
            "o_t = Σ_{s ≤ t} softmax_s(q_t · k_s / √K) v_s",
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
        window: int | None = None,
        rope_base: float = 10_000.0,
        bias: bool = False,
        qk_norm: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.heads = heads_for(width) if heads is None else heads
        self.kv_heads = self.heads if kv_heads is None else kv_heads
        divide(self.kind, "heads", self.heads, "kv_heads", self.kv_heads)
        self.key_size = key_size or divide(self.kind, "width", width, "heads", self.heads)
        if self.key_size % 2:
            raise InputError(
                f"`key_size` of attention is {self.key_size}; rotary positions turn pairs: choose an even one."
            )
        if window is not None and window < 1:
            raise InputError(f"`window` of attention is {window}; wanted at least 1 step, or None for all of them.")
        self.window, self.rope_base = window, rope_base
        queries, keys = self.heads * self.key_size, self.kv_heads * self.key_size
        self.q_proj = nn.Linear(width, queries, bias=bias)
        self.kv_proj = nn.Linear(width, 2 * keys, bias=bias)
        self.q_norm = RMSNorm(self.key_size, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.key_size, eps=1e-6) if qk_norm else nn.Identity()
        self.out_proj = nn.Linear(queries, width, bias=False)
        self.spec = {"kv_heads": self.kv_heads, "key_size": self.key_size, "window": window}

    def leaves(self):
        cache = Leaf((None if self.window is None else self.window - 1, self.kv_heads, self.key_size), "input")
        return {"k": cache, "v": cache, "position": Leaf((), "index")}

    def canonical(self, leaves):
        if self.window is not None:
            return dict(leaves)
        position = leaves["position"]
        longest = int(position.max()) if position.numel() else 0
        used = torch.arange(longest, device=position.device) < position.unsqueeze(1)
        kept = {n: torch.where(used[..., None, None], leaves[n][:, :longest], 0) for n in ("k", "v")}
        return {**kept, "position": position}

    def mix(self, x, state, call: Call):
        if not isinstance(call.method, Auto | Fused):
            raise BackendError(
                f"{call.method} cannot run attention, which is no recurrence. These can: Auto(), Fused()."
            )
        sequence, position = call.sequence, state["position"]
        places = sequence.positions(x.device) + sequence.per_step(position)
        q = self.q_norm(self.q_proj(x).unflatten(-1, (self.heads, self.key_size)))
        k, v = self.kv_proj(x).unflatten(-1, (2 * self.kv_heads, self.key_size)).chunk(2, 2)
        q, k = rotate(q, places, self.rope_base), rotate(self.k_norm(k), places, self.rope_base)
        lengths = sequence.lengths(x.device)
        q, k, v = sequence.pad((q, k, v))
        if self.window is None:
            o, k, v = self._over_all(q, k, v, state, lengths, call)
        else:
            o, k, v = self._over_window(q, k, v, state, lengths, self.window)
        y = self.out_proj(sequence.unpad(o).flatten(-2))
        return y, {"k": k, "v": v, "position": position + lengths}

    def _over_window(self, q, k, v, state, lengths, window: int):
        keys, values = (torch.cat([state[n].to(new.dtype), new], 1) for n, new in (("k", k), ("v", v)))
        o = attend_window(q, keys, values, state["position"], window)
        old = window - 1
        return o, slide_window(keys, lengths, old), slide_window(values, lengths, old)

    def _over_all(self, q, k, v, state, lengths, call: Call):
        position = state["position"]
        if state["k"].shape[1] == 0 and call.sequence.cu_seqlens is None:
            return attend(q, k, v, position), k, v
        needed = int((position + lengths).max()) if position.numel() else 0
        valid = call.sequence.valid(q.device)
        in_place = call.donate and not torch.is_grad_enabled()
        k, v = (
            grow_cache(state[n].to(new.dtype), new, position, valid, needed, in_place)
            for n, new in (("k", k), ("v", v))
        )
        return attend(q, k[:, :needed], v[:, :needed], position), k, v
