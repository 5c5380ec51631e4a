"""Sizes that follow from the width, and those that must fit."""

from __future__ import annotations

from ritornello.errors import InputError

__all__ = ["check_pairs", "check_steps", "heads_for", "multiple"]


def heads_for(width: int, size: int = 64) -> int:
    """How many heads of about `size` channels a width has: the largest divisor of the width up to width / size."""
    return next(h for h in range(max(1, width // size), 0, -1) if width % h == 0)


def multiple(size: float, of: int) -> int:
    """The nearest multiple, at least one: kernels are fastest there."""
    return max(of, int(size / of + 0.5) * of)


def check_pairs(kind: str, state_size: int) -> None:
    """Refuse a state of a layer of `kind` that is not of conjugate pairs."""
    if state_size < 2 or state_size % 2:
        raise InputError(f"`state_size` of {kind} is {state_size}; wanted an even number: conjugate pairs.")


def check_steps(kind: str, step_min: float, step_max: float) -> None:
    """Refuse bounds that step sizes cannot be drawn from, log-uniform."""
    if not 0 < step_min <= step_max:
        raise InputError(f"`step_min`, `step_max` of {kind} are {step_min}, {step_max}; wanted 0 < min ≤ max.")
