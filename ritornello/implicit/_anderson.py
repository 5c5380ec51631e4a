"""Fixed points of a map, row by row, by Anderson's mixing of the last iterates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ritornello.typing import Tensor

__all__ = ["Found", "fixed_point", "rounding"]

MEMORY = 5
"""Differences of iterates that are mixed."""
PATIENCE, NEAR = 6, 100.0
"""Sweeps without a smaller residual after which a row that is within so many times `tol` has come as far as it will."""
RUNAWAY = 1e3
"""A residual so much above a row's smallest one sends it back there, its memory cleared."""


@dataclass(frozen=True, eq=False)
class Found:
    """What was found.

    Args:
        y: (B, ...), of each row the iterate of the smallest residual.
        residual: (B,) that residual, the largest |F(y) − y| relative to the largest |y|.
        sweeps: evaluations of F.
    """

    y: Tensor
    residual: Tensor
    sweeps: int


def rounding(dtype: torch.dtype) -> float:
    """The residual that rounding leaves."""
    return 16 * torch.finfo(dtype).eps


def fixed_point(
    sweep: Callable[[Tensor], Tensor],
    y: Tensor,
    tol: float | Tensor,
    most: int,
    relax: float = 1.0,
    every: int = 1,
    enough: float | Tensor = float("inf"),
) -> Found:
    """Iterate y ← F(y) for every row (B, ...) until its residual is `tol`, or near it and does not fall any more.

    y ← y + β r − Σ_i γ_i (Δy_i + β Δr_i), r = F(y) − y, where γ makes the residual smallest that a linear F would have
    after the mixing: on a linear F a restarted GMRES, which needs a power less than y ← F(y) and stands what grows.

    Args:
        sweep: F, for all rows at once; a row that is done is not moved any more.
        tol: of the residual, relative to the row's largest |y|; (B,) where it is not the same for all.
        most: evaluations of F.
        relax: β.
        every: each so many-th sweep is mixed, the others are y ← y + β r. Over many times, 3: mixing speeds up what
            contracts slowly, plain sweeps carry on a state that each step turns over.
        enough: the residual that the caller accepts, (B,) or one for all. Above it a row is never given up for near:
            far from the solution of a nonlinear F the residual may rise for longer than patience lasts.

    Source: Anderson 1965, "Iterative Procedures for Nonlinear Integral Equations"; Walker and Ni 2011, "Anderson
    Acceleration for Fixed-Point Iterations", SIAM J. Numer. Anal. 49, algorithm AA; every few sweeps: Banerjee et al.
    2016, "Periodic Pulay method for robust and efficient convergence acceleration of self-consistent field iterations".
    """
    rows = len(y)
    best, best_y, best_r = y.new_full((rows,), float("inf")), y, torch.zeros_like(y)
    idle = torch.zeros(rows, dtype=torch.long, device=y.device)
    memory, count = _Memory(y), 0
    for count in range(1, most + 1):
        residual = sweep(y) - y
        size = _relative(residual, y)
        better = size < best
        idle = torch.where(better, 0, idle + 1)
        best = torch.where(better, size, best)
        best_y, best_r = _where(better, y, best_y), _where(better, residual, best_r)
        done = (best <= tol) | ((idle >= PATIENCE) & (best <= NEAR * tol) & (best <= enough))
        if bool(done.all()):
            break
        lost = ~(size <= RUNAWAY * best)  # no number at all, too
        y, residual = _where(lost, best_y, y), _where(lost, best_r, residual)
        memory.push(y, residual, lost)
        moved = y + relax * residual
        if count % every == 0:
            moved = moved - memory.correction(residual, relax)
        y = _where(done, best_y, moved)
    return Found(best_y, best, count)


def _where(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(which.view(-1, *(1,) * (one.dim() - 1)), one, other)


def _relative(residual: Tensor, y: Tensor) -> Tensor:
    """(B,) the largest |residual| relative to the largest |y|; 0 where there is none."""
    if y.numel() == 0:
        return y.new_zeros(len(y))
    size, scale = (x.flatten(1).abs().amax(1) for x in (residual, y))
    return torch.where(size == 0, 0, size / scale.clamp(min=torch.finfo(y.dtype).tiny)).nan_to_num(float("inf"))


class _Memory:
    """The last differences of iterates and of their residuals, (B, M, N)."""

    def __init__(self, y: Tensor):
        self.last: tuple[Tensor, Tensor] | None = None
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []

    def push(self, y: Tensor, residual: Tensor, forget: Tensor) -> None:
        now = y.flatten(1), residual.flatten(1)
        if self.last is not None:
            step, change = now[0] - self.last[0], now[1] - self.last[1]
            self.steps = [*self.steps, step][-MEMORY:]
            self.changes = [*self.changes, change][-MEMORY:]
            if bool(forget.any()):
                self.steps = [s.masked_fill(forget.unsqueeze(1), 0) for s in self.steps]
                self.changes = [c.masked_fill(forget.unsqueeze(1), 0) for c in self.changes]
        self.last = now

    def correction(self, residual: Tensor, relax: float) -> Tensor | float:
        """Σ_i γ_i (Δy_i + β Δr_i), γ = argmin |r − Σ_i γ_i Δr_i|²."""
        if not self.steps:
            return 0.0
        changes, steps = torch.stack(self.changes, 1), torch.stack(self.steps, 1)
        # Each scaled to length 1, so that the smallest of them count; the products in float64, as they are few.
        size = changes.norm(dim=2, keepdim=True).clamp(min=torch.finfo(residual.dtype).tiny)
        units = changes / size
        gram = (units @ units.mT).double()
        wanted = (units @ residual.flatten(1).unsqueeze(2)).double()
        slack = 1e-13 if residual.dtype == torch.float64 else 1e-7
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram + slack * eye, wanted).to(residual.dtype) / size
        return ((steps + relax * changes).mT @ weights).squeeze(2).view_as(residual)
