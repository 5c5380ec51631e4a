"""Multi-head latent attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.attention import attend, common_start, cropped, most, remember, widen_cache
from ritornello.layers.parts.low_rank import LowRankProjection
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.rotary import angles, turn
from ritornello.layers.parts.sizes import heads_for, multiple
from ritornello.typing import Tensor

__all__ = ["LatentAttention"]


class LatentAttention(Layer):
    """[c_s, r_s] = W_c x_s, c ← RMSNorm(c), [k_s, v_s] = W_u c_s for each head;
    o_t = Σ_{s ≤ t} softmax_s(q_t · [k_s, r_s] / √(K + R)) v_s; y = W_o o.

    Keys and values of all heads come from one short vector c; the part r of the keys, which all heads share, and that
    of the queries are turned by their position. The state is the cache of [c, r]: it grows; given away
    (``donate=True``) it is written in place and grows by doubling. Where that is less work, queries are read by c
    itself, (W_uᵀ q) · c for q · (W_u c), and keys and values are never made.

    Args:
        width: of x.
        heads: of queries, keys and values.
        key_size: K, of k; width / heads where None.
        value_size: of v; as K where None.
        shared_size: R, of r; half of K, and even, where None.
        rank: of c; 4 K, but at most half of the width, where None.
        query_rank: q = W_b RMSNorm(W_a x) of that rank; q = W_q x where None.
        rope_base: of the rotary frequencies; no positions are told where None. With them R must be even.
        norm_eps: of the norms.

    Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1; the norms as in the authors' code, and without positions as
    in Kimi Linear, arXiv:2510.26692.
    """

    kind = "latent_attention"
    traits = Traits(
        About(
            "Multi-head latent attention (MLA)",
            "DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434",
            "attention",
            "o_t = Σ_{s ≤ t} softmax_s(q_t · [k_s, r_s] / √(K + R)) v_s, [k_s, v_s] = W_u c_s",
        ),
        growth="linear",
        affine=False,
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        shared_size: int | None = None,
        rank: int | None = None,
        query_rank: int | None = None,
        rope_base: float | None = 10_000.0,
        norm_eps: float = 1e-6,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.heads = heads_for(width) if heads is None else heads
        self.key_size = divide(self.kind, "width", width, "heads", self.heads) if key_size is None else key_size
        self.value_size = self.key_size if value_size is None else value_size
        self.shared_size = multiple(self.key_size / 2, 2) if shared_size is None else shared_size
        self.rank = min(4 * self.key_size, multiple(width / 2, 1)) if rank is None else rank
        sizes = {"heads": self.heads, "key_size": self.key_size, "value_size": self.value_size}
        at_least(1, self.kind, **sizes, shared_size=self.shared_size, rank=self.rank)
        at_least(1, self.kind, query_rank=1 if query_rank is None else query_rank)
        if rope_base is not None and self.shared_size % 2:
            raise InputError(
                f"`shared_size` of {self.kind} is {self.shared_size}; rotary positions turn pairs: choose an even one, "
                "or `rope_base` = None."
            )
        self.rope_base = rope_base
        queries = self.heads * (self.key_size + self.shared_size)
        self.q_proj = (
            nn.Linear(width, queries, bias=False)
            if query_rank is None
            else LowRankProjection(width, queries, query_rank, RMSNorm(query_rank, norm_eps))
        )
        self.kv_down = nn.Linear(width, self.rank + self.shared_size, bias=False)
        self.kv_norm = RMSNorm(self.rank, norm_eps)
        self.kv_up = nn.Linear(self.rank, self.heads * (self.key_size + self.value_size), bias=False)
        self.out_proj = nn.Linear(self.heads * self.value_size, width, bias=False)
        self.spec = {"rank": self.rank, "shared_size": self.shared_size}

    def leaves(self):
        return {"latent": Leaf((None, self.rank + self.shared_size), "input"), "position": Leaf((), "index")}

    def canonical(self, leaves):
        return cropped(leaves, "latent")

    def reserve(self, leaves, steps):
        room = most(leaves["position"]) + steps
        return dict(leaves) | {"latent": widen_cache(leaves["latent"], room)}

    def mix(self, x, state, call: Call):
        call.demand_fused(self.kind)
        sequence, position = call.sequence, state["position"]
        q = self.q_proj(x).unflatten(-1, (self.heads, -1))
        c, r = self.kv_down(x).split([self.rank, self.shared_size], -1)
        start = common_start(position, sequence)
        if self.rope_base is not None:
            by = angles(sequence.places(position), self.shared_size, self.rope_base, x.dtype)
            q = torch.cat([q[..., : self.key_size], turn(q[..., self.key_size :], *by)], -1)
            r = turn(r.unsqueeze(2), *by).squeeze(2)
        q, latent = sequence.pad((q, torch.cat([self.kv_norm(c), r], -1)))
        caches, seen, start = remember({"latent": latent}, state, call, start)
        o = sequence.unpad(self._read(q, seen["latent"], position, start)).flatten(-2)
        return self.out_proj(o), caches | {"position": sequence.after(position)}

    def _read(self, q: Tensor, latent: Tensor, position: Tensor, start: int | None) -> Tensor:
        """q (N, L, H, K + R) and latent (N, C, rank + R) → (N, L, H, V)."""
        new, all_, both = q.shape[1], latent.shape[1], self.key_size + self.value_size
        scale = q.shape[-1] ** -0.5
        c, r = latent.split([self.rank, self.shared_size], -1)
        # By products, of a head: each query through W_u and longer scores, or each key and value through W_u.
        if new * all_ * (2 * self.rank - both) < (all_ - new) * self.rank * both:
            keys, values = self.kv_up.weight.unflatten(0, (self.heads, both)).split([self.key_size, self.value_size], 1)
            q = torch.cat([torch.einsum("nlhk,hkc->nlhc", q[..., : self.key_size], keys), q[..., self.key_size :]], -1)
            o = attend(q, latent.unsqueeze(2), c.unsqueeze(2), position, scale, start)
            return torch.einsum("nlhc,hvc->nlhv", o, values)
        k, v = self.kv_up(c).unflatten(-1, (self.heads, both)).split([self.key_size, self.value_size], -1)
        k = torch.cat([k, r.unsqueeze(2).expand(*k.shape[:3], -1)], -1)
        return attend(q, k, v, position, scale, start)
