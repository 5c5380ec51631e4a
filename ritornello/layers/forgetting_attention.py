"""Forgetting attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.attention import cropped, grow_cache, most
from ritornello.layers.parts.sizes import heads_for
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.ops import rms_norm
from ritornello.typing import Tensor

__all__ = ["ForgettingAttention"]

BLOCK = 256  # queries whose scores are held at once


class NormOfHeads(nn.Module):
    """RMSNorm of each head for itself, with weights for all of their channels."""

    tags: ClassVar = {"weight": (NO_WEIGHT_DECAY,)}

    def __init__(self, heads: int, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, K) → (B, T, H, K)."""
        return rms_norm(x, eps=self.eps) * self.weight.to(x.dtype)


class ForgettingAttention(Layer):
    """o_t = Σ_{s ≤ t} softmax_s(q_t · k_s / √K + Σ_{s < r ≤ t} log f_r) v_s, softmax attention that forgets, by a gate
    f = σ(W_f x + b) per head, and needs no positions; y = W_o o.

    The Pro block adds: keys and values mixed with those before, k ← a k_{t−1} + (1 − a) k_t with a = σ(w_a x) per head;
    norms on queries, keys and outputs, head by head; an output gate σ(W_g x).

    The state is the cache of keys and values, and by how much each has been forgotten so far. It grows; given away
    (``donate=True``) it is written in place and grows by doubling.

    Args:
        width: of x.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None.
        pro: the Pro block, whose parts are:
        shift: keys and values are mixed with those before; as `pro` where None.
        qk_norm: norms on queries and keys; as `pro` where None.
        out_norm: a norm on the output; as `pro` where None.
        gate: the output gate; as `pro` where None.
        norm_eps: of the norms.

    Source: Lin et al. 2025, arXiv:2503.02130, section 3; norms with weights for every head, as in the
    authors' code.
    """

    kind = "forgetting_attention"
    traits = Traits(
        About(
            "Forgetting attention (FoX)",
            "Lin et al. 2025, Forgetting Transformer: Softmax Attention with a Forget Gate, arXiv:2503.02130",
            "attention",
            "o_t = Σ_{s ≤ t} softmax_s(q_t · k_s / √K + Σ_{s < r ≤ t} log f_r) v_s",
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
        pro: bool = False,
        shift: bool | None = None,
        qk_norm: bool | None = None,
        out_norm: bool | None = None,
        gate: bool | None = None,
        norm_eps: float = 1e-5,
        **base: Any,
    ):
        super().__init__(width, **base)
        shift, qk_norm, out_norm, gate = (pro if part is None else part for part in (shift, qk_norm, out_norm, gate))
        self.heads = heads_for(width) if heads is None else heads
        self.kv_heads = self.heads if kv_heads is None else kv_heads
        divide(self.kind, "heads", self.heads, "kv_heads", self.kv_heads)
        self.key_size = divide(self.kind, "width", width, "heads", self.heads) if key_size is None else key_size
        at_least(1, self.kind, key_size=self.key_size)
        queries, keys = self.heads * self.key_size, self.kv_heads * self.key_size
        self.q_proj = nn.Linear(width, queries, bias=False)
        self.kv_proj = nn.Linear(width, 2 * keys, bias=False)
        self.forget_proj = nn.Linear(width, self.heads)
        nn.init.zeros_(self.forget_proj.bias)
        self.shift_proj = nn.Linear(width, 2 * self.kv_heads, bias=False) if shift else None
        self.q_norm = NormOfHeads(self.heads, self.key_size, norm_eps) if qk_norm else nn.Identity()
        self.k_norm = NormOfHeads(self.kv_heads, self.key_size, norm_eps) if qk_norm else nn.Identity()
        self.norm = NormOfHeads(self.heads, self.key_size, norm_eps) if out_norm else nn.Identity()
        self.gate_proj = nn.Linear(width, queries, bias=False) if gate else None
        self.out_proj = nn.Linear(queries, width, bias=False)
        self.spec = {"heads": self.heads, "kv_heads": self.kv_heads, "key_size": self.key_size, "shift": shift}

    def leaves(self):
        cache = Leaf((None, self.kv_heads, self.key_size), "input")
        leaves = {"k": cache, "v": cache, "forgotten": Leaf((None, self.heads)), "position": Leaf((), "index")}
        if self.shift_proj is not None:
            leaves["shift"] = Leaf((2 * self.kv_heads * self.key_size,), "input")
        return leaves

    def canonical(self, leaves):
        return cropped(leaves, "k", "v", "forgotten")

    def mix(self, x, state, call: Call):
        call.demand_fused(self.kind)
        sequence, position, new = call.sequence, state["position"], {}
        kv = self.kv_proj(x)
        if self.shift_proj is not None:
            before, new["shift"] = sequence.shift(kv, state["shift"])
            share = torch.sigmoid(self.shift_proj(x)).unsqueeze(-1)
            heads = 2 * self.kv_heads, self.key_size
            kv = torch.lerp(kv.unflatten(-1, heads), before.unflatten(-1, heads), share).flatten(-2)
        k, v = kv.unflatten(-1, (2, self.kv_heads, self.key_size)).unbind(2)
        q, k = self.q_norm(self.q_proj(x).unflatten(-1, (self.heads, self.key_size))), self.k_norm(k)
        log_f = F.logsigmoid(self.forget_proj(x).to(state["forgotten"].dtype))
        q, k, v, log_f = sequence.pad((q, k, v, log_f))
        lengths = sequence.lengths(x.device)
        k, v, forgotten, until_end, seen = self._remember(k, v, log_f, lengths, state, call)
        o = forgetting(q.to(log_f.dtype), k[:, :seen], v[:, :seen], forgotten[:, :seen], until_end, position)
        o = self.norm(sequence.unpad(o)).flatten(-2)
        if self.gate_proj is not None:
            o = o * torch.sigmoid(self.gate_proj(x))
        caches = {"k": k, "v": v, "forgotten": forgotten.to(log_f.dtype), "position": position + lengths}
        return self.out_proj(o.to(x.dtype)), caches | new

    def _remember(self, k: Tensor, v: Tensor, log_f: Tensor, lengths: Tensor, state: Any, call: Call) -> Any:
        """The caches with the new steps, Σ log f after each new step up to the end of its row, and how much is used.

        The sums are float64: in a long row they are large, and their differences, which count, are small.
        """
        sequence, position = call.sequence, state["position"]
        valid = sequence.valid(k.device)
        sums = torch.where(valid.unsqueeze(-1), log_f.double(), 0).cumsum(1)
        total = sums[:, -1:] if sums.shape[1] else sums.new_zeros(sums.shape[0], 1, self.heads)
        until_end = total - sums
        if state["k"].shape[1] == 0 and sequence.cu_seqlens is None:
            return k, v, until_end, until_end, k.shape[1]
        needed = most(position + lengths)
        in_place = call.donate and not torch.is_grad_enabled()
        k, v = (
            grow_cache(state[n].to(new.dtype), new, position, lambda: valid, needed, in_place)
            for n, new in (("k", k), ("v", v))
        )
        forgotten = grow_cache(state["forgotten"] + total, until_end, position, lambda: valid, needed, donate=False)
        return k, v, forgotten, until_end, needed


def forgetting(q: Tensor, k: Tensor, v: Tensor, forgotten: Tensor, until_end: Tensor, position: Tensor) -> Tensor:
    """Causal attention with the log of what has been forgotten added to the scores, in blocks of queries.

    Args:
        q: (N, L, H, D), the new steps, in float32 or wider.
        k, v: (N, C, Hkv, D), the old steps and the new ones at their places.
        forgotten: (N, C, H) ≤ 0: Σ log f from behind each key to the end, float64.
        until_end: (N, L, H) ≤ 0: Σ log f from behind each query to the end, float64.
        position: (N,) how many steps of each row came before the new ones.

    Returns:
        (N, L, H, D) in the dtype of q.
    """
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (t.to(q.dtype).transpose(1, 2) for t in (q, k, v))
    places = torch.arange(k.shape[2], device=q.device)
    outputs = []
    for start in range(0, q.shape[2], BLOCK):
        queries = q[:, :, start : start + BLOCK]
        steps = torch.arange(start, start + queries.shape[2], device=q.device)
        seen = places <= (position.unsqueeze(1) + steps).unsqueeze(-1)
        first = until_end[:, start : start + 1]  # near it both sums are small, and may be rounded
        of_keys, of_queries = (t.to(q.dtype) for t in (forgotten - first, until_end[:, start : start + BLOCK] - first))
        bias = of_keys.unsqueeze(1) - of_queries.unsqueeze(2)
        bias = bias.masked_fill(~seen.unsqueeze(-1), float("-inf")).permute(0, 3, 1, 2)
        outputs.append(F.scaled_dot_product_attention(queries, k, v, attn_mask=bias, enable_gqa=grouped))
    return torch.cat(outputs, 2).transpose(1, 2) if outputs else q.transpose(1, 2)
