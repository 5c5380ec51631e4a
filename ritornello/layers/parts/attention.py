"""Causal softmax attention over what was read before and what is read now.

Two caches: of a sliding window (fixed size, oldest first, aligned at its end) and of everything (aligned at its start,
with room to grow). Both see the new steps as padded rows (N, L, ...), the steps beyond a row's length being ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from ritornello.kernels.tape import recording
from ritornello.layers.base import Call
from ritornello.layers.parts.numbers import is_mapped, numbers
from ritornello.sequence import Sequence
from ritornello.typing import Tensor

__all__ = [
    "attend",
    "attend_window",
    "common_start",
    "cropped",
    "grow_cache",
    "most",
    "remember",
    "slide_window",
    "widen_cache",
]


def most(position: Tensor) -> int:
    """The largest of the positions (N,); 0 where there are no rows."""
    return numbers("A cache of keys and values", position.max()) if position.numel() else 0


def common_start(position: Tensor, sequence: Sequence) -> int | None:
    """How many steps all rows have read, where all have read as many and asking costs nothing; None otherwise.

    A token at a time, most of the time of a small model goes into small calls: one place for all rows spares many.
    """
    watched = torch.compiler.is_compiling() or recording() or is_mapped(position)
    if sequence.cu_seqlens is not None or position.device.type != "cpu" or watched:
        return None
    starts = position.tolist()
    return starts[0] if starts and starts.count(starts[0]) == len(starts) else None


def attend(
    q: Tensor, keys: Tensor, values: Tensor, position: Tensor, scale: float | None = None, start: int | None = None
) -> Tensor:
    """Step i of row n attends to the keys 0 … position_n + i.

    Args:
        q: (N, L, H, D), the new steps.
        keys, values: (N, C, Hkv, D), the old ones and the new ones at their places.
        position: (N,) how many steps of each row came before the new ones.
        start: the same as a number, where it is one.

    Returns:
        (N, L, H, D).
    """
    length, capacity = q.shape[1], keys.shape[1]
    if start == 0:  # nothing came before: PyTorch's own causal kernel. No shape would tell it of rows that began apart
        return _attention(q, keys, values, None, scale, causal=True)
    if length == 1 and start == capacity - 1:  # a single step sees all there is
        return _attention(q, keys, values, None, scale)
    steps = torch.arange(length, device=q.device)
    last = position.unsqueeze(1) + steps  # (N, L) the last key that each step may see
    mask = torch.arange(capacity, device=q.device) <= last.unsqueeze(-1)
    return _attention(q, keys, values, mask.unsqueeze(1), scale)


def attend_window(
    q: Tensor, keys: Tensor, values: Tensor, position: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """Step i attends to itself and the window − 1 steps before it, in blocks of queries: time O(L · window).

    Args:
        q: (N, L, H, D), the new steps.
        keys, values: (N, window − 1 + L, Hkv, D), the cache and the new steps; the cache's last `position` are real.
        position: (N,) how many steps of each row came before the new ones.
    """
    length, old = q.shape[1], window - 1
    block = max(window, 64)
    outputs = []
    for start in range(0, length, block):
        count = min(block, length - start)
        span = slice(start, start + count + old)
        # In the coordinates of the block, step i sees the keys i … i + old; the cache's empty places are left out.
        steps = torch.arange(count, device=q.device).unsqueeze(1)
        places = torch.arange(count + old, device=q.device)
        mask = (places >= steps) & (places <= steps + old)
        real = (places + start).unsqueeze(0) >= old - position.unsqueeze(1)
        mask = (mask & real.unsqueeze(1)).unsqueeze(1)
        outputs.append(_attention(q[:, start : start + count], keys[:, span], values[:, span], mask, scale))
    return torch.cat(outputs, 1) if outputs else q


def _attention(q, k, v, mask, scale, causal: bool = False) -> Tensor:
    n, length, heads, size = q.shape
    grouped = heads != k.shape[2]
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if grouped and length == 1 and not causal:  # the heads that share keys as rows: the cache is not copied for each
        q = q.reshape(n, k.shape[1], -1, size)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).reshape(n, 1, heads, v.shape[-1])
    q = q.transpose(1, 2)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)
    return o.transpose(1, 2)


def slide_window(joined: Tensor, lengths: Tensor | int, old: int) -> Tensor:
    """The last `old` real steps of (N, old + L, ...), where row n has `lengths_n` real new ones, or all as many."""
    if isinstance(lengths, int):
        return joined[:, lengths : lengths + old].contiguous()
    places = lengths.unsqueeze(1) + torch.arange(old, device=joined.device)
    return joined[torch.arange(joined.shape[0], device=joined.device).unsqueeze(1), places]


def grow_cache(
    cache: Tensor,
    new: Tensor,
    position: Tensor,
    valid: Callable[[], Tensor] | None,
    needed: int,
    donate: bool,
    start: int | None = None,
) -> Tensor:
    """The cache (N, C, ...) with the valid new steps (N, L, ...) of row n (all of them where `valid` is None) written
    from `position_n` on, or all of them from `start` on where it is given.

    With `donate` it is written in place where there is room, and otherwise grows by doubling, so that a stream of
    single steps costs O(1) copies each.
    """
    capacity = cache.shape[1]
    if needed > capacity or not donate:
        cache = widen_cache(cache, max(needed, 2 * capacity) if donate and capacity else needed)
    if start is not None:
        cache[:, start : start + new.shape[1]] = new
        return cache
    rows = torch.arange(new.shape[0], device=new.device).unsqueeze(1)
    places = position.unsqueeze(1) + torch.arange(new.shape[1], device=new.device)
    if valid is None:
        return cache.index_put_((rows, places), new.to(cache.dtype))
    real = valid()
    return cache.index_put_((rows.expand_as(places)[real], places[real]), new[real].to(cache.dtype))


def remember(
    new: Mapping[str, Tensor], state: Mapping[str, Any], call: Call, start: int | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], int | None]:
    """Caches of everything with the new steps written to them.

    Args:
        new: by the names of the caches, (N, L, ...).
        state: the caches (N, C, ...) and ``position``.
        start: what `common_start` found.

    Returns:
        The new caches; what `attend` is to see of them; and its `start`.
    """
    position, sequence = state["position"], call.sequence
    caches = {name: state[name] for name in new}
    fresh = next(iter(caches.values())).shape[1] == 0  # no row has read anything: the new steps are all there is to see
    if fresh and sequence.cu_seqlens is None:
        return dict(new), dict(new), 0
    if recording():  # the same shapes at every step: all the room there is, most of it masked
        needed = next(iter(caches.values())).shape[1]
    elif start is not None:
        needed = start + sequence.length
    else:
        needed = most(sequence.after(position))
    in_place = call.donate and not torch.is_grad_enabled()
    valid = None if sequence.cu_seqlens is None else lambda: sequence.valid(position.device)
    grown = {
        name: grow_cache(cache.to(new[name].dtype), new[name], position, valid, needed, in_place, start)
        for name, cache in caches.items()
    }
    if fresh:
        return grown, dict(new), 0
    return grown, {name: cache[:, :needed] for name, cache in grown.items()}, start


def cropped(leaves: Mapping[str, Tensor], *caches: str) -> dict[str, Tensor]:
    """The leaves, with the `caches` (N, C, ...) cut to the longest row and zero beyond the `position` of each."""
    position = leaves["position"]
    longest = most(position)
    used = torch.arange(longest, device=position.device) < position.unsqueeze(1)
    found = dict(leaves)
    for name in caches:
        cache = leaves[name][:, :longest]
        found[name] = torch.where(used.view(*used.shape, *(1,) * (cache.dim() - 2)), cache, 0)
    return found


def widen_cache(cache: Tensor, room: int) -> Tensor:
    """A copy of the cache (N, C, ...) with room for so many steps, zero where it had none."""
    kept = min(cache.shape[1], room)
    wider = cache.new_zeros(cache.shape[0], room, *cache.shape[2:])
    wider[:, :kept] = cache[:, :kept]
    return wider
