"""Sizes that follow from the width."""

from __future__ import annotations

__all__ = ["heads_for", "multiple"]


def heads_for(width: int, size: int = 64) -> int:
    """How many heads of about `size` channels a width has: the largest divisor of the width up to width / size."""
    return next(h for h in range(max(1, width // size), 0, -1) if width % h == 0)


def multiple(size: float, of: int) -> int:
    """The nearest multiple, at least one: kernels are fastest there."""
    return max(of, int(size / of + 0.5) * of)
