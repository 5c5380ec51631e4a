"""h_i ← Σ_j a_ij ⊙ h_j + b_i in two passes over blocks of √T steps; packed sequences are one scan, cut by zeros.

Differentiated by recomputing it: the loops are short, and their steps are of all blocks at once.
"""

from __future__ import annotations

import math

import torch

from ritornello.typing import Tensor, accumulated


def forward(a, b, state, cu_seqlens, save):
    dtype = b.dtype
    a, b = accumulated(a), accumulated(b)
    if cu_seqlens is None:
        h = _scan(a, b, state)
        return (h.to(dtype), h[:, -1].clone()), None
    some = cu_seqlens.diff().nonzero().squeeze(1)  # the sequences that are not empty
    starts, ends = cu_seqlens[some].long(), cu_seqlens[some + 1].long() - 1
    entering = _times(a[0, starts], state[some])
    a, b = a.index_fill(1, starts, 0), b.index_add(1, starts, entering.unsqueeze(0))
    h = _scan(a, b, torch.zeros_like(b[:, 0]))
    used = torch.arange(h.shape[1], device=h.device) < cu_seqlens[-1]
    return (torch.where(used[:, None, None], h, 0).to(dtype), state.index_copy(0, some, h[0, ends])), None


def _times(a: Tensor, h: Tensor) -> Tensor:
    return (a * h.unsqueeze(-3)).sum(-2)


def _scan(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """h at all times: of each block its matrix and its last h from zero, a scan over these, and the blocks again."""
    steps = b.shape[1]
    size = math.isqrt(steps)
    if size < 4:
        return torch.stack(_loop(a.unbind(1), b.unbind(1), state), 1)
    cut = steps // size * size
    a_steps, b_steps = (list(x[:, :cut].unflatten(1, (-1, size)).unbind(2)) for x in (a, b))
    matrix, added = a_steps[0], b_steps[0]
    for now_a, now_b in zip(a_steps[1:], b_steps[1:], strict=True):
        matrix = torch.einsum("...ijd,...jkd->...ikd", now_a, matrix)
        added = _times(now_a, added) + now_b
    after = torch.stack(_loop(matrix.unbind(1), added.unbind(1), state), 1)
    before = torch.cat([state.unsqueeze(1), after[:, :-1]], 1)
    h = torch.stack(_loop(a_steps, b_steps, before), 2).flatten(1, 2)
    if cut == steps:
        return h
    rest = _loop(a[:, cut:].unbind(1), b[:, cut:].unbind(1), h[:, -1])
    return torch.cat([h, torch.stack(rest, 1)], 1)


def _loop(a, b, h: Tensor) -> list[Tensor]:
    states = []
    for now_a, now_b in zip(a, b, strict=True):
        h = _times(now_a, h) + now_b
        states.append(h)
    return states
