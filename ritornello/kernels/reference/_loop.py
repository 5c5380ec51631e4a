"""The loop over sequences and times that every reference kernel is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from ritornello.typing import Tensor, accumulated

__all__ = ["expand_heads", "loop"]


def loop(
    step: Callable[..., tuple[Tensor, tuple[Tensor, ...]]],
    inputs: Sequence[Tensor | None],
    state: Sequence[Tensor],
    like: Tensor,
    cu_seqlens: Tensor | None,
) -> tuple[tuple[Tensor, ...], None]:
    """Run ``step(*inputs at one time, *state) -> (output, state)`` over time, in float32 or wider.

    Returns the outputs in the shape and dtype of `like`, and the last state, as a kernel does.
    """
    if cu_seqlens is None:
        outputs, last = _run(step, inputs, tuple(state))
        return (torch.stack(outputs, 1).to(like.dtype), *last), None
    ends = cu_seqlens.tolist()
    pieces, finals = [], []
    for row, (start, end) in enumerate(pairwise(ends)):
        cut = [None if x is None else x[:, start:end] for x in inputs]
        outputs, last = _run(step, cut, tuple(s[row : row + 1] for s in state))
        pieces += outputs
        finals.append(last)
    unused = like.new_zeros(1, like.shape[1] - ends[-1], *like.shape[2:])
    outputs = [torch.stack(pieces, 1).to(like.dtype)] if pieces else []
    last = [torch.cat(parts) for parts in zip(*finals, strict=True)] or [s.clone() for s in state]
    return (torch.cat([*outputs, unused], 1), *last), None


def _run(step, inputs, state):
    length = next(x for x in inputs if x is not None).shape[1]
    columns = [[None] * length if x is None else accumulated(x).unbind(1) for x in inputs]
    outputs = []
    for now in zip(*columns, strict=True):
        output, state = step(*now, *state)
        outputs.append(output)
    return outputs, state


def expand_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H, K) → (B, T, heads, K): value head j reads head j // (heads / H)."""
    return x.repeat_interleave(heads // x.shape[2], 2)
