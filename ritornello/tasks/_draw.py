"""What several tasks draw: integers, choices without replacement, lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["check", "choose", "doubled", "integers", "lengths", "within"]


def integers(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform over low … high − 1."""
    return torch.randint(low, high, shape, generator=generator)


def choose(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(B, count) different indices of the last dimension of `weights` (B, n), drawn one after the other in proportion.

    The largest of log w + Gumbel noise, in order, are such a draw: Efraimidis & Spirakis 2006.
    """
    noise = torch.empty(weights.shape).exponential_(generator=generator)
    return (weights / noise).topk(count, dim=1).indices


def lengths(batch: int, low: int, high: int, length: int | None, generator: torch.Generator) -> Tensor:
    """(B, 1) the rows' lengths: all of them `length`, or where None uniform over low … high."""
    if length is not None:
        return torch.full((batch, 1), length)
    return integers(low, high + 1, (batch, 1), generator)


def within(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T) bools for rows of `lengths` (B, 1), T the longest: the steps of each row, and its last step."""
    steps = torch.arange(int(lengths.max()))
    return steps < lengths, steps == lengths - 1


def doubled(task: Any, progress: float, times: int) -> Any:
    """A curriculum: `train_length` is doubled so many times in the first half of training, to arrive at its value."""
    left = max(0, times - int(2 * progress * times))
    changes: dict[str, Any] = {"train_length": task.train_length >> left, "doublings": 0}
    return replace(task, **changes) if left else task


def check(holds: bool, message: str) -> None:
    """Refuse the sizes of a task."""
    if not holds:
        raise InputError(message)
