"""Cross-entropy over a large vocabulary, in chunks of steps: the logits of all steps never stand in memory together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ritornello.sequence import Sequence
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["IGNORE", "chunked_cross_entropy", "next_ids"]

IGNORE = -100
"""The target of a step that does not count, as in PyTorch."""

LOGITS_AT_ONCE = 2**22
"""16 MiB in float32; a step of a small model fits whole, and then nothing is computed twice."""


def chunked_cross_entropy(
    hidden: Tensor, targets: Tensor, logits_of: Callable[[Tensor], Tensor], vocab_size: int
) -> Tensor:
    """Σ −log softmax(logits_of(hidden))[target] over the steps whose target is not IGNORE.

    Where there is more than one chunk, each chunk's logits are computed again in the backward.

    Args:
        hidden: (N, D).
        targets: (N,) integers.
        logits_of: (n, D) → (n, vocab_size).

    Returns:
        A scalar in float32 or wider.
    """

    def piece(h: Tensor, t: Tensor) -> Tensor:
        logits = logits_of(h)
        logits = logits.to(accumulation_dtype(logits.dtype))
        return F.cross_entropy(logits, t, ignore_index=IGNORE, reduction="sum")

    size = max(1, LOGITS_AT_ONCE // vocab_size)
    if hidden.shape[0] <= size:
        return piece(hidden, targets)
    total = hidden.new_zeros((), dtype=accumulation_dtype(hidden.dtype))
    for h, t in zip(hidden.split(size), targets.split(size), strict=True):
        again = torch.is_grad_enabled()
        total = total + (checkpoint(piece, h, t, use_reentrant=False) if again else piece(h, t))
    return total


def next_ids(ids: Tensor, sequence: Sequence) -> Tensor:
    """(B, T) the id that follows each step in its own sequence; IGNORE at the last one and beyond packed sequences."""
    targets = torch.cat([ids[:, 1:], ids[:, :1]], 1).long()
    if sequence.cu_seqlens is None:
        last = torch.arange(ids.shape[1], device=ids.device) >= ids.shape[1] - 1
        return targets.masked_fill(last, IGNORE)
    return targets.masked_fill(last_steps(sequence), IGNORE)


def last_steps(sequence: Sequence) -> Tensor:
    """(1, T) which packed steps end their sequence or lie beyond the last one."""
    assert sequence.cu_seqlens is not None
    positions, steps = sequence.positions(), torch.arange(sequence.length, device=sequence.cu_seqlens.device)
    following = torch.cat([positions[:, 1:], torch.zeros_like(positions[:, :1])], 1)
    return (following == 0) | (steps >= sequence.cu_seqlens[-1] - 1)
