"""Newton's iteration over a window of time, until the error of every sequence is bounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from ritornello.method.newton._linearise import System
from ritornello.method.newton._memory import longest_window
from ritornello.typing import Tensor

__all__ = ["Report", "by_steps", "rounding_of", "solve"]

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
        bound: of the error, relative likewise.
        rounding: (B, N) what rounding errors have grown to at the last time.
    """

    certified: Tensor
    iterations: Tensor
    residual: Tensor
    bound: Tensor
    rounding: Tensor


def solve(
    system: System, tol: float, max_iterations: int, damping: float, counts: Tensor | None, carried: Tensor
) -> Report:
    """Solve F = 0 in place, from the guess that `system` holds.

    h ← h + δ, δ_t = J_t δ_{t−1} + r_t, r_t = f(h_{t−1}, u_t) − h_t, J_t = ∂f/∂h_{t−1}. To first order δ is the error of
    h. A sequence is certified where |δ|, and what rounding errors eps |h_t| of random signs grow to, e_t = J_t e_{t−1}
    ± eps |h_t|, are together within `tol` of the largest |h|. A residual as small as rounding would not do: in a
    chaotic cell it is a solution of a neighbouring problem, and e says so.

    Args:
        counts: (B, T) bool, the times that count; all where None.
        carried: (B, N) the error of the state before the first step, e_0.
    """
    batch, device = len(system.h), system.h.device
    unknown = torch.full((batch,), float("inf"), device=device, dtype=torch.float64)
    certified, iterations = torch.zeros_like(unknown, dtype=torch.bool), torch.zeros_like(unknown, dtype=torch.long)
    report = Report(certified, iterations, unknown, unknown.clone(), torch.zeros_like(carried))
    active, now = torch.arange(batch, device=device), _Iterate(system, tol, counts, damping, carried)
    for iteration in range(1, max_iterations + 1):
        step, residual = now.advance()
        last = iteration == max_iterations
        if not last and not (step <= tol).any():
            continue
        error, rounding, grown = now.bound()
        near = now.undamped() & (step <= tol)
        accepted = near & (error + rounding <= tol)
        done = accepted | (near & (rounding > tol)) | last
        at = active[done]
        report.certified[at], report.iterations[at] = accepted[done], iteration
        report.rounding[at] = grown[done]
        report.residual[at], report.bound[at] = residual[done].double(), (error + rounding)[done].double()
        if now.system is not system:
            system.h[at] = now.system.h[done]
        if done.all():
            break
        if done.any():
            active = active[~done]
            now.keep(~done)
    return report


class _Iterate:
    """The guess of the sequences that are not done yet, and what is known of it."""

    def __init__(self, system: System, tol: float, counts: Tensor | None, damping: float, carried: Tensor):
        self.system, self.tol, self.counts, self.carried = system, tol, counts, carried
        self.damping = _Damping(damping, system.h) if damping else None
        self.jacobian: Tensor | None = None
        self.fresh = False
        self.steps = system.h.new_full((len(system.h),), float("inf"))
        self.scale = system.peak(system.guess, counts)

    def keep(self, index: Tensor) -> None:
        self.system, self.steps, self.scale = self.system.rows(index), self.steps[index], self.scale[index]
        self.carried = self.carried[index]
        self.counts = None if self.counts is None else self.counts[index]
        self.jacobian = None if self.jacobian is None else self.jacobian[index]
        if self.damping is not None:
            self.damping.keep(index)

    def undamped(self) -> Tensor:
        """(B,) bool, whether steps are those of Newton's method itself."""
        return torch.ones_like(self.steps, dtype=torch.bool) if self.damping is None else self.damping.value == 0

    def advance(self) -> tuple[Tensor, Tensor]:
        """One step: the size of δ and of the residual for each sequence, relative to the largest |h|."""
        system = self.system
        # Where one more step will do, the Jacobian of the last one is as good; so is it for the bound.
        chord = self.fresh and bool(((self.steps <= self.tol**0.5) & self.undamped()).all())
        if chord:
            residual = system.residual()
        else:
            self.jacobian = None  # its memory is free for the next one
            self.jacobian, residual = system.linearise()
        assert self.jacobian is not None
        if self.damping is not None:
            self.damping.apply(self.jacobian, residual)
        delta = system.scan(self.jacobian, residual)
        peak = system.peak(delta, self.counts)
        if bool((peak <= 0.1 * self.scale).all()):
            self.scale = system.peak(system.guess, self.counts)
        before, self.steps = self.steps, system.ratio(peak, self.scale)
        self.fresh = not chord or bool((self.steps <= 0.1 * before).all())
        found = system.ratio(system.peak(residual, self.counts), self.scale)
        _advance(system, residual, delta, self.steps)
        return self.steps, found

    def bound(self) -> tuple[Tensor, Tensor, Tensor]:
        """The error to first order and what rounding errors grow to, both relative; and these at the last time."""
        if self.system.structure.whole is not None:
            return rounding_of(self.system, self.counts, self.carried)
        assert self.jacobian is not None
        grown = self.system.scan(self.jacobian, self.system.guess * _signs(self.system), self.carried)
        return self.steps, self.system.ratio(self.system.peak(grown, self.counts), self.scale), grown[:, -1]


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


def rounding_of(part: System, counts: Tensor | None, carried: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bound at the states that a system holds, from all of the Jacobian, whatever part of it an iteration kept:
    the error to first order, what rounding errors grow to, and these at the last time."""
    system = part.restructured(part.structure.whole)
    signs, size = _signs(system), longest_window(system.structure, system.h)
    carried = system.structure.to_order(part.structure.from_order(carried), 1)
    ends = [torch.zeros_like(carried), carried]
    peaks = [system.peak(system.guess[:, :0], None)] * 2
    for start in range(0, system.length, size):
        window = system.window(start, min(start + size, system.length))
        inside = None if counts is None else counts[:, start : start + size]
        jacobian, residual = window.linearise()
        added = residual, window.guess * signs[start : start + size]
        errors = [window.scan(jacobian, x, end) for x, end in zip(added, ends, strict=True)]
        ends = [e[:, -1] for e in errors]
        peaks = [torch.maximum(p, window.peak(e, inside)) for p, e in zip(peaks, errors, strict=True)]
    scale = system.peak(system.guess, counts)
    last = part.structure.to_order(system.structure.from_order(ends[1]), 1)
    return system.ratio(peaks[0], scale), system.ratio(peaks[1], scale), last


class _Damping:
    """Levenberg's λ of each sequence: δ_t = J_t δ_{t−1} / (1 + λ) + r_t lies between Newton's step (λ = 0) and Picard's
    (λ = ∞), which is slow and always gets there. λ falls while the residual does, and grows where the residual grows.

    Source: Gonzalez et al. 2024, arXiv:2407.19115, section 4.2 (ELK): a Kalman filter whose gain damps the Jacobian.
    """

    def __init__(self, first: float, like: Tensor):
        self.value = like.new_full((like.shape[0],), first)
        self.best = like.new_full((like.shape[0],), float("inf"))

    def keep(self, index: Tensor) -> None:
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
