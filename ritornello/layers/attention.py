"""Softmax attention, with rotary positions, grouped heads and an optional sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.attention import (
    attend,
    attend_window,
    common_start,
    cropped,
    most,
    remember,
    slide_window,
    widen_cache,
)
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.rotary import Stretch, Yarn, angles, turn
from ritornello.layers.parts.sizes import heads_for
from ritornello.typing import Tensor

__all__ = ["Attention"]

QK_NORMS = ("none", "head", "all")


class Attention(Layer):
    """o_t = Σ_{s ≤ t} softmax_s(q_t · k_s / √K) v_s over the last `window` steps, queries and keys turned by their
    position; y = W_o o, or W_o (o ⊙ σ(W_g x)) with a `gate`.

    The state is the cache of keys and values: of the last window − 1 steps, or of all of them. Then it grows; given
    away (``donate=True``) it is written in place and grows by doubling.

    Args:
        width: of x.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads`; as many where None.
        key_size: of a head; width / heads where None. Even.
        window: how many steps are seen, the present one included; all of them where None.
        rope_base: of the rotary frequencies.
        rope_size: how many channels of a head are turned, the first ones; all of them where None. Even; with 0 no
            positions are told.
        rope_scaling: the frequencies are divided by its ``factor``; with ``low``, ``high`` and ``length`` only those of
            pairs that turn seldom in that many steps, as in Llama 3.1 (see `Stretch`); with ``length`` and perhaps
            ``fast``, ``slow``, ``scale`` and ``whole`` as in YaRN (see `Yarn`). None: they are not.
        bias: whether the projections of q, k, v and of the gate have one.
        out_bias: whether W_o has one.
        qk_norm: RMSNorm on queries and keys: ``"head"`` (or True) each head for itself, ``"all"`` over the heads
            together; ``"none"`` (or False).
        norm_eps: of that norm.
        zero_centred: it multiplies by 1 + its weight, which starts at zero.
        gate: whether a gate closes the output, head by head and channel by channel.

    Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rotary positions); Ainslie et al.
    2023, arXiv:2305.13245 (grouped heads); Beltagy et al. 2020, arXiv:2004.05150 (window); Qiu et al. 2025,
    arXiv:2505.06708 (gate); Henry et al. 2020, arXiv:2010.04245, and OLMo 2, arXiv:2501.00656 (norms per head and of
    all).
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
        rope_size: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
        bias: bool = False,
        out_bias: bool = False,
        qk_norm: bool | str = "none",
        norm_eps: float = 1e-6,
        zero_centred: bool = False,
        gate: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.heads = heads_for(width) if heads is None else heads
        self.kv_heads = self.heads if kv_heads is None else kv_heads
        divide(self.kind, "heads", self.heads, "kv_heads", self.kv_heads)
        self.key_size = divide(self.kind, "width", width, "heads", self.heads) if key_size is None else key_size
        at_least(1, self.kind, key_size=self.key_size)
        self.rope_base = rope_base
        self.rope_size = self.key_size if rope_size is None else rope_size
        if self.rope_size % 2 or not 0 <= self.rope_size <= self.key_size:
            name = "key_size" if rope_size is None else "rope_size"
            raise InputError(
                f"`{name}` of attention is {self.rope_size}; rotary positions turn pairs of the {self.key_size} "
                "channels of a head: choose an even one."
            )
        self.stretch = _stretch(rope_scaling)
        if window is not None and window < 1:
            raise InputError(f"`window` of attention is {window}; wanted at least 1 step, or None for all of them.")
        self.window = window
        queries, keys = self.heads * self.key_size, self.kv_heads * self.key_size
        self.q_proj = nn.Linear(width, queries, bias=bias)
        self.kv_proj = nn.Linear(width, 2 * keys, bias=bias)
        self.gate_proj = nn.Linear(width, queries, bias=bias) if gate else None
        self.qk_norm = {False: "none", True: "head"}.get(qk_norm, qk_norm)  # type: ignore[call-overload]
        if self.qk_norm not in QK_NORMS:
            raise InputError(f"`qk_norm` of attention is {qk_norm!r}. {nearest(str(qk_norm), QK_NORMS)}")
        sizes = {"head": (self.key_size, self.key_size), "all": (queries, keys)}.get(self.qk_norm, ())
        norms = [RMSNorm(size, norm_eps, zero_centred) for size in sizes] or [nn.Identity(), nn.Identity()]
        self.q_norm, self.k_norm = norms
        self.out_proj = nn.Linear(queries, width, bias=out_bias)
        self.spec = {"kv_heads": self.kv_heads, "key_size": self.key_size, "window": window}

    def leaves(self):
        cache = Leaf((None if self.window is None else self.window - 1, self.kv_heads, self.key_size), "input")
        return {"k": cache, "v": cache, "position": Leaf((), "index")}

    def canonical(self, leaves):
        return dict(leaves) if self.window is not None else cropped(leaves, "k", "v")

    def reserve(self, leaves, steps):
        if self.window is not None:
            return dict(leaves)
        room = most(leaves["position"]) + steps
        return {n: widen_cache(t, room) if n in ("k", "v") else t for n, t in leaves.items()}

    def mix(self, x, state, call: Call):
        call.demand_fused(self.kind)
        sequence, position = call.sequence, state["position"]
        k, v = self.kv_proj(x).chunk(2, -1)
        q, k = self._normed(self.q_norm, self.q_proj(x)), self._normed(self.k_norm, k)
        v = v.unflatten(-1, (self.kv_heads, self.key_size))
        start = common_start(position, sequence)
        if self.rope_size:
            by = self._angles(x, position, start, call)
            q, k = turn(q, *by), turn(k, *by)
        q, k, v = sequence.pad((q, k, v))
        if self.window is None:
            o, k, v = self._over_all(q, k, v, state, start, call)
        else:
            o, k, v = self._over_window(q, k, v, state, start, call, self.window)
        o = sequence.unpad(o).flatten(-2)
        if self.gate_proj is not None:
            o = o * torch.sigmoid(self.gate_proj(x))
        return self.out_proj(o), {"k": k, "v": v, "position": sequence.after(position)}

    def _angles(self, x: Tensor, position: Tensor, start: int | None, call: Call) -> tuple[Tensor, Tensor]:
        """By what queries and keys are turned: the same for all layers of a model whose rows are at the same place."""
        key = f"angles of {self.rope_size}, {self.rope_base}, {self.stretch}, {x.dtype} from {start}"
        if start is None or key not in call.carry:
            places = call.sequence.places(position)
            call.carry[key] = angles(places, self.rope_size, self.rope_base, x.dtype, self.stretch)
        return call.carry[key]

    def _normed(self, norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """(B, T, heads·K) → (B, T, heads, K)."""
        if self.qk_norm == "head":
            return norm(x.unflatten(-1, (-1, self.key_size)))
        return norm(x).unflatten(-1, (-1, self.key_size))

    def _over_window(self, q, k, v, state, start: int | None, call: Call, window: int):
        keys, values = (torch.cat([state[n].to(new.dtype), new], 1) for n, new in (("k", k), ("v", v)))
        sequence, old = call.sequence, window - 1
        if start is not None and sequence.length == 1:  # a token at a time: all that is real is seen
            seen = min(start, old)
            o = attend(q, keys[:, old - seen :], values[:, old - seen :], state["position"], start=seen)
        else:
            o = attend_window(q, keys, values, state["position"], window)
        lengths = sequence.length if sequence.cu_seqlens is None else sequence.lengths(q.device)
        return o, slide_window(keys, lengths, old), slide_window(values, lengths, old)

    def _over_all(self, q, k, v, state, start: int | None, call: Call):
        caches, seen, start = remember({"k": k, "v": v}, state, call, start)
        return attend(q, seen["k"], seen["v"], state["position"], start=start), caches["k"], caches["v"]


def _stretch(scaling: Mapping[str, Any] | None) -> Stretch | Yarn | None:
    if scaling is None:
        return None
    names = set(scaling)
    some = names == {"factor", "low", "high", "length"}
    yarn = {"factor", "length"} <= names <= {f.name for f in fields(Yarn)}
    wrong = [name for name, value in scaling.items() if name != "whole" and not _positive(value)]
    if wrong or not (some or yarn or names == {"factor"}):
        raise InputError(
            f"`rope_scaling` of attention is {dict(scaling)}; wanted a positive factor, alone, with low, high and "
            "length, or with length and perhaps fast, slow, scale and whole."
        )
    return Yarn(**scaling) if yarn else Stretch(**scaling)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
