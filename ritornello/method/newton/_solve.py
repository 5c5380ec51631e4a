"""Newton's iteration over a window of time, until the error of every sequence is bounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from ritornello.method.newton._linearise import System
from ritornello.method.newton._memory import longest_window
from ritornello.typing import Tensor

__all__ = ["Report", "by_steps", "solve"]

EASE, HARDEN, VANISH, WORSE = 0.1, 8.0, 1e-3, 1.5
"""Levenberg's damping: its factor after a good step and after a bad one, below what it counts as none, and the growth
of the residual that makes a step bad."""


@dataclass(frozen=True, eq=False)
class Report:
    """What the iteration came to, for each sequence (B,).

    Args:
        certified: whether the bound is within the tolerance.
        iterations: steps of Newton's method.
        residual: largest |f(h_{t−1}, u_t) − h_t|, relative to the largest |h|.
        bound: of the error, relative likewise; infinite where no iterate came near.
    """

    certified: Tensor
    iterations: Tensor
    residual: Tensor
    bound: Tensor


def solve(system: System, tol: float, max_iterations: int, damping: float, counts: Tensor | None) -> Report:
    """Solve F = 0 in place, from the guess that `system` holds.

    h ← h + δ, δ_t = J_t δ_{t−1} + r_t, r_t = f(h_{t−1}, u_t) − h_t, J_t = ∂f/∂h_{t−1}. To first order δ is the error of
    h. A sequence is certified where |δ|, and what rounding errors eps |h_t| of random signs grow to, e_t = J_t e_{t−1}
    ± eps |h_t|, are together within `tol` of the largest |h|. A residual as small as rounding would not do: in a
    chaotic cell it is a solution of a neighbouring problem, and e says so.

    Args:
        counts: (B, T) bool, the times that count; all where None.
    """
    batch = system.h.shape[0]
    device = system.h.device
    report = Report(
        torch.zeros(batch, dtype=torch.bool, device=device),
        torch.full((batch,), max_iterations, device=device),
        *(torch.full((batch,), float("inf"), device=device, dtype=torch.float64) for _ in range(2)),
    )
    active, part = torch.arange(batch, device=device), system
    levenberg = _Damping(damping, system.h) if damping else None
    for iteration in range(1, max_iterations + 1):
        jacobian, residual = part.linearise()
        if levenberg is not None:
            levenberg.apply(jacobian, residual)
        delta = part.scan(jacobian, residual)
        step = part.relative(delta, counts)
        near = step <= tol if levenberg is None else (step <= tol) & (levenberg.value == 0)
        if not near.any() and iteration < max_iterations:
            _advance(part, residual, delta, step)
            continue
        found = part.relative(residual, counts)
        bound = _bound(part, jacobian, step, counts)
        done = near if iteration < max_iterations else torch.ones_like(near)
        at = active[done]
        report.certified[at] = (near & (bound <= tol))[done]
        report.iterations[at] = iteration
        report.residual[at], report.bound[at] = found[done].double(), bound[done].double()
        _advance(part, residual, delta, step)
        if part is not system:
            system.h[at] = part.h[done]
        if done.all():
            break
        active, part = active[~done], part.rows(~done)
        counts = None if counts is None else counts[~done]
        if levenberg is not None:
            levenberg.rows(~done)
    return report


def _advance(part: System, residual: Tensor, delta: Tensor, step: Tensor) -> None:
    """h ← h + δ; from the first time at which that is no number, h_t ← f(h_{t−1}, u_t) at the old guess, or 0."""
    if bool(step.isfinite().all()):
        part.guess.add_(delta)
        return
    fine = torch.isfinite(part.guess + delta).all(-1, keepdim=True).cummin(1)[0]
    part.guess.add_(torch.where(fine, delta, residual)).nan_to_num_(0.0, 0.0, 0.0)


def _signs(part: System) -> Tensor:
    """(T, N) of ±eps."""
    generator = torch.Generator().manual_seed(0)
    times, numbers = (
        torch.randint(2, (n,), generator=generator).mul_(2).sub_(1).to(part.h) for n in (part.length, part.width)
    )
    return times.mul_(torch.finfo(part.h.dtype).eps).unsqueeze(1) * numbers


def _bound(part: System, jacobian: Tensor, step: Tensor, counts: Tensor | None) -> Tensor:
    """(B,) what the error is within: |δ|, and what rounding errors grow to."""
    if part.structure.whole is None:
        return step + part.relative(part.scan(jacobian, part.guess * _signs(part)), counts)
    # The iteration goes by a part of the Jacobian; the error goes by all of it.
    whole = part.restructured(part.structure.whole)
    signs, size = _signs(whole), longest_window(whole.structure, whole.h)
    delta = rounding = whole.h.new_zeros(whole.h.shape[0], whole.width)
    found = torch.zeros_like(step)
    for start in range(0, whole.length, size):
        window = whole.window(start, min(start + size, whole.length))
        inside = None if counts is None else counts[:, start : start + size]
        full, residual = window.linearise()
        deltas = window.scan(full, residual, delta)
        grown = window.scan(full, window.guess * signs[start : start + size], rounding)
        found = torch.maximum(found, window.relative(deltas, inside) + window.relative(grown, inside))
        delta, rounding = deltas[:, -1], grown[:, -1]
    return found


class _Damping:
    """Levenberg's λ of each sequence: δ_t = J_t δ_{t−1} / (1 + λ) + r_t lies between Newton's step (λ = 0) and Picard's
    (λ = ∞), which is slow and always gets there. λ falls while the residual does, and grows where the residual grows.

    Source: Gonzalez et al. 2024, arXiv:2407.19115, section 4.2 (ELK): a Kalman filter whose gain damps the Jacobian.
    """

    def __init__(self, first: float, like: Tensor):
        self.value = like.new_full((like.shape[0],), first)
        self.best = like.new_full((like.shape[0],), float("inf"))

    def rows(self, index: Tensor) -> None:
        self.value, self.best = self.value[index], self.best[index]

    def apply(self, jacobian: Tensor, residual: Tensor) -> None:
        norm = residual.square().mean((1, 2)).sqrt()
        grown = ~(norm <= WORSE * self.best)
        self.value = torch.where(grown, HARDEN * self.value.clamp(min=VANISH), EASE * self.value)
        self.value[self.value < VANISH] = 0
        self.best = torch.minimum(self.best, norm.nan_to_num(float("inf")))
        jacobian /= (1 + self.value).view(-1, *(1,) * (jacobian.dim() - 1))


def by_steps(system: System, rows: Tensor) -> None:
    """The states of the sequences `rows` by a loop over the cell's step, in place.

    All sequences are stepped, as the method Sequential does: products of fewer rows may round otherwise, and in a
    chaotic cell the last bit decides.
    """
    state = system.structure.layout.tree(system.structure.from_order(system.h[:, 0].clone()))
    for time, now in enumerate(zip(*(x.unbind(1) for x in system.u), strict=True)):
        state = system.cell.step(pytree.tree_unflatten(list(now), system.spec), state)
        ordered = system.structure.to_order(pytree.tree_leaves(state), 1)
        system.guess[rows, time] = ordered[rows]
