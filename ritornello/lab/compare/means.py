"""Means that say how much they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

__all__ = ["Mean", "mean_of", "t_quantile"]

T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t for 1 to 15 degrees of freedom."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, with the half-width of its 95 % confidence interval; None of one seed."""

    value: float
    half_width: float | None
    count: int
    least: float
    most: float

    def interval(self, low: float, high: float) -> tuple[float, float] | None:
        """The interval within the bounds that a score has."""
        if self.half_width is None:
            return None
        return max(low, self.value - self.half_width), min(high, self.value + self.half_width)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of independent values, x̄ ± t · s / √n with Student's t of n − 1 degrees of freedom.

    Three seeds tell little: t is 4.3 there, and the interval says so.
    """
    half = t_quantile(len(values) - 1) * stdev(values) / sqrt(len(values)) if len(values) > 1 else None
    return Mean(fmean(values), half, len(values), min(values), max(values))


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t.

    Beyond 15 degrees of freedom by Cornish and Fisher's expansion, whose error is below 1e-3 there (Abramowitz and
    Stegun 1964, 26.7.5).
    """
    if freedom <= len(T):
        return T[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
