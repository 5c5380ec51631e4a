"""What this machine can do at most: a matrix product and a copy, measured in the same run as everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ritornello.lab.bench.timing import Budget, interleave

__all__ = ["Ceilings", "measure_ceilings"]

SIZE = 2048
COPY = 64 * 2**20
"""Numbers that are copied: 256 MB, beyond every cache."""


@dataclass(frozen=True)
class Ceilings:
    """The best run of each. Shares are of `matmul` and `copy`."""

    matmul: float
    """FLOP/s, float32, 2048³, into memory that is there."""
    matmul_allocated: float
    """The same with its output allocated each time."""
    matmul_bf16: float
    """The same in bfloat16, into memory that is there."""
    copy: float
    """B/s, read and write counted."""


def measure_ceilings(budget: Budget) -> Ceilings:
    a, b = torch.randn(2, SIZE, SIZE)
    out, low, low_out = torch.empty_like(a), (a.bfloat16(), b.bfloat16()), torch.empty_like(a, dtype=torch.bfloat16)
    product = 2 * SIZE**3
    rates = [
        _rate(lambda: torch.mm(a, b, out=out), product, budget),
        _rate(lambda: torch.mm(a, b), product, budget),
        _rate(lambda: torch.mm(*low, out=low_out), product, budget),
    ]
    source = torch.ones(COPY)
    target = torch.zeros_like(source)
    return Ceilings(*rates, copy=_rate(lambda: target.copy_(source), 2 * 4 * COPY, budget))


@torch.no_grad()
def _rate(call: Callable[[], Any], work: int, budget: Budget) -> float:
    return work / min(interleave(call, None, budget).ours)
