"""Heads of causal attention whose weights are not a plain softmax: projections, cache, and scores in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import Call, Leaf, at_least, divide
from ritornello.layers.parts.attention import grow_cache, most
from ritornello.layers.parts.rotary import angles, turn
from ritornello.layers.parts.sizes import heads_for
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["CachedHeads"]

BLOCK = 256  # queries whose scores are held at once

Weigh = Callable[[Tensor, Tensor], Tensor]


class CachedHeads(nn.Module):
    """y_t = W_o Σ_{s ≤ t} w_ts v_s, w of the scores q_t · k_s / √K; queries and keys are turned by their positions.

    Args:
        kind: of the layer, for messages.
        width: of x and y.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None. Even.
        rope_base: of the rotary frequencies.
    """

    def __init__(
        self, kind: str, width: int, heads: int | None, kv_heads: int | None, key_size: int | None, rope_base: float
    ):
        super().__init__()
        self.heads = heads_for(width) if heads is None else heads
        self.kv_heads = self.heads if kv_heads is None else kv_heads
        divide(kind, "heads", self.heads, "kv_heads", self.kv_heads)
        self.key_size = divide(kind, "width", width, "heads", self.heads) if key_size is None else key_size
        at_least(1, kind, key_size=self.key_size)
        if self.key_size % 2:
            raise InputError(
                f"`key_size` of {kind} is {self.key_size}; rotary positions turn pairs: choose an even one."
            )
        self.rope_base = rope_base
        self.q_proj = nn.Linear(width, self.heads * self.key_size, bias=False)
        self.kv_proj = nn.Linear(width, 2 * self.kv_heads * self.key_size, bias=False)
        self.out_proj = nn.Linear(self.heads * self.key_size, width, bias=False)

    @property
    def sizes(self) -> dict[str, int]:
        """What the state depends on, by the names of a layer's options."""
        return {"kv_heads": self.kv_heads, "key_size": self.key_size}

    def leaves(self) -> dict[str, Leaf]:
        cache = Leaf((None, self.kv_heads, self.key_size), "input")
        return {"k": cache, "v": cache, "position": Leaf((), "index")}

    def forward(
        self, x: Tensor, state: Mapping[str, Tensor], call: Call, weigh: Weigh
    ) -> tuple[Tensor, dict[str, Any]]:
        """x (B, T, width) → y, and the leaves of the new state.

        Args:
            weigh: scores (N, H, L, C) in float32 or wider, and how many steps each key lies back (N, 1, L, C), below 0
                where it lies ahead → w, zero there.
        """
        sequence, position = call.sequence, state["position"]
        k, v = self.kv_proj(x).unflatten(-1, (2, self.kv_heads, self.key_size)).unbind(2)
        q = self.q_proj(x).unflatten(-1, (self.heads, self.key_size))
        by = angles(sequence.places(position), self.key_size, self.rope_base, x.dtype)
        q, k, v = sequence.pad((turn(q, *by), turn(k, *by), v))
        lengths = sequence.lengths(x.device)
        if state["k"].shape[1] or sequence.cu_seqlens is not None:
            needed, in_place = most(position + lengths), call.donate and not torch.is_grad_enabled()
            k, v = (
                grow_cache(state[n].to(new.dtype), new, position, lambda: sequence.valid(x.device), needed, in_place)
                for n, new in (("k", k), ("v", v))
            )
        else:
            needed = k.shape[1]
        o = _read(q, k[:, :needed], v[:, :needed], position, weigh)
        o = sequence.unpad(o).flatten(-2).to(x.dtype)
        return self.out_proj(o), {"k": k, "v": v, "position": position + lengths}


def _read(q: Tensor, k: Tensor, v: Tensor, position: Tensor, weigh: Weigh) -> Tensor:
    """q (N, L, H, D), k and v (N, C, Hkv, D) with the old steps and the new ones at their places → (N, L, H, D)."""
    wide, kv_heads = accumulation_dtype(q.dtype), k.shape[2]
    q, k, v = q.unflatten(2, (kv_heads, -1)).to(wide), k.to(wide), v.to(wide)
    places, outputs = torch.arange(k.shape[1], device=q.device), [q[:, :0].flatten(2, 3)]
    for start in range(0, q.shape[1], BLOCK):
        queries = q[:, start : start + BLOCK]
        own = position.unsqueeze(1) + torch.arange(start, start + queries.shape[1], device=q.device)
        scores = torch.einsum("nlhgd,nchd->nhglc", queries, k).flatten(1, 2) * q.shape[-1] ** -0.5
        weights = weigh(scores, (own.unsqueeze(-1) - places).unsqueeze(1)).unflatten(1, (kv_heads, -1))
        outputs.append(torch.einsum("nhglc,nchd->nlhgd", weights, v).flatten(2, 3))
    return torch.cat(outputs, 1)
