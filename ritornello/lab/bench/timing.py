"""Pieces of work timed in turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

__all__ = ["Budget", "Timing", "in_turns", "interleave"]

Call = Callable[[], Any]

SAMPLE = 2e-3
"""Seconds a sample lasts at least: shorter calls are repeated within it, or the clock itself would be measured."""


@dataclass(frozen=True)
class Budget:
    """Rounds of a measurement: as many as fit into `seconds`, from `least` to `most`.

    Work so slow that `least` rounds would take four times the seconds gets fewer, but one at least.
    """

    seconds: float = 3.0
    least: int = 5
    most: int = 60

    def spent(self, rounds: int, elapsed: float) -> bool:
        if rounds >= self.most:
            return True
        return elapsed >= (self.seconds if rounds >= self.least else 4 * self.seconds if rounds else float("inf"))


@dataclass(frozen=True)
class Timing:
    """Seconds per call, round by round; `peer` is empty where there was none."""

    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        """How many times as long the peer takes: the median over the rounds."""
        return median(p / o for o, p in zip(self.ours, self.peer, strict=True)) if self.peer else None

    @property
    def best_ratio(self) -> float | None:
        """The same of the best run of each."""
        return min(self.peer) / min(self.ours) if self.peer else None


def interleave(ours: Call, peer: Call | None, budget: Budget) -> Timing:
    """Ours and the peer in turns."""
    return Timing(*in_turns([ours] if peer is None else [ours, peer], budget))


def in_turns(calls: Sequence[Call], budget: Budget) -> list[tuple[float, ...]]:
    """Seconds per call, round by round, of each. After the warm-up all run in turns, forth and back."""
    repeats = [_repeats(call) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would fall on one side only
    try:
        begin = time.perf_counter()
        while not budget.spent(len(times[0]), time.perf_counter() - begin):
            order = range(len(calls)) if len(times[0]) % 2 == 0 else reversed(range(len(calls)))
            for i in order:
                times[i].append(_sample(calls[i], repeats[i]))
    finally:
        if collecting:
            gc.enable()
    return [tuple(t) for t in times]


def _repeats(call: Call) -> int:
    """Calls in one sample; finding it is the warm-up."""
    first = _sample(call, 1)
    if first > 20 * SAMPLE:
        return 1
    return min(1000, max(1, ceil(SAMPLE / max(min(_sample(call, 1), _sample(call, 1)), 1e-9))))


def _sample(call: Call, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats
