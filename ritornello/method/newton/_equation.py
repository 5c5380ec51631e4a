"""A cell whose step is an equation, over all times at once: the scan solves what is scanned, the rest is iterated over.

With y ← F(y) for all times, F the cell's sweep, the step of the iteration is that of a Newton method which keeps of the
Jacobian only the cell's own transition; Anderson's mixing makes up for what it leaves out.

The certificate is that of every other cell, without a Jacobian: to first order the error of y is (1 − F')⁻¹ r,
r = F(y) − y, and what rounding errors ±eps |y_t| grow to is (1 − F')⁻¹ of them. Both are seen in a second solution, of
the equation moved by α (r ± eps |y|), with α such that this is √eps |y|: α times their sum, to first order again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from ritornello.errors import ConvergenceError, InputError
from ritornello.implicit import EVERY, ImplicitCell, attach, fixed_point, rounding
from ritornello.method.sequential import Sequential
from ritornello.sequence import Sequence, leading
from ritornello.typing import Tensor, Tree

if TYPE_CHECKING:
    from ritornello.method.newton.newton import Newton

__all__ = ["solve_equation"]

TOLERANCE = {torch.float64: 1e-10}
MARGIN = 0.1
"""The residual is brought to so much of the tolerance; that of the moved equation to so much of what moves it least."""


def solve_equation(
    options: Newton, cell: ImplicitCell, u: Tree, state: Tree, sequence: Sequence
) -> tuple[Tensor, Tree, dict[str, Any]]:
    """The outputs (B, T, ...) and the last state with their derivatives, and what was done.

    Args:
        u: what drives the steps, (B, T, ...), packed or not as `sequence` says.
        state: the state before the first step, with leading (B,).
    """
    if options.jacobian not in ("auto", "quasi"):
        raise InputError(
            f"`jacobian` of Newton is {options.jacobian!r}, and the step of {type(cell).__name__} is an equation: what "
            "its sweep scans is kept, which is 'quasi'. Leave `jacobian` at 'auto'."
        )
    run = _Run(options, cell, state)
    for part in _windows(u, sequence, options.window):
        run.window(part)
    parts = [p.sequence.pad(y) for p, y in zip(run.parts, run.outputs, strict=True)]
    y = run.outputs[0] if len(parts) == 1 else sequence.unpad(torch.cat(parts, 1))
    return y, run.state, run.stats()


@dataclass(frozen=True, eq=False)
class _Part:
    """A window of time of all sequences: (B, steps), or packed again."""

    start: int
    stop: int
    u: Tree
    sequence: Sequence


def _windows(u: Tree, sequence: Sequence, window: int | None) -> list[_Part]:
    rows = sequence.pad(u)
    total = leading(rows).shape[1]
    if window is None or window >= total:
        return [_Part(0, total, u, sequence)]
    spans = [(t, min(t + window, total)) for t in range(0, total, window)]
    return [_part(rows, sequence, *span) for span in spans]


def _part(rows: Tree, sequence: Sequence, start: int, stop: int) -> _Part:
    u = pytree.tree_map(lambda x: x[:, start:stop], rows)
    if sequence.cu_seqlens is None:
        return _Part(start, stop, u, Sequence(sequence.batch, stop - start))
    lengths = (sequence.lengths() - start).clamp(0, stop - start)
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    packed = Sequence(sequence.batch, int(ends[-1]), ends, stop - start)
    return _Part(start, stop, packed.unpad(u), packed)


class _Run:
    """Window after window; what is not certified is run step by step, from where states last were those of a loop."""

    def __init__(self, options: Newton, cell: ImplicitCell, state: Tree):
        self.options, self.cell, self.state = options, cell, state
        first = pytree.tree_leaves(state)[0]
        self.tol = TOLERANCE.get(first.dtype, 1e-5) if options.tol is None else options.tol
        self.parts: list[_Part] = []
        self.outputs: list[Tensor] = []
        self.error: Tree | None = None  # of the state before the window, to first order
        self.exact: tuple[int, Tree] = (0, state)
        self.sweeps, self.residual, self.bound = 0, 0.0, 0.0
        self.failed: list[dict[str, Any]] = []

    def window(self, part: _Part) -> None:
        self.parts.append(part)
        with torch.no_grad():
            solution = _Solution(self.cell, part, self.state, self.error, self.tol)
            y, residual, bound, error, sweeps = solution.find(self.options.most_sweeps, 1 / (1 + self.options.damping))
        self.sweeps = max(self.sweeps, sweeps)
        worst = [float(x.max()) if len(x) else 0.0 for x in (residual, bound)]
        self.residual, self.bound = max(self.residual, worst[0]), max(self.bound, worst[1])
        failed = (~(bound <= self.tol)).nonzero()[:, 0].tolist()
        if not failed:
            y, self.state = attach(self.cell, part.u, y, self.state, part.sequence)
            self.outputs.append(y)
            self.error = error
            return
        if self.options.on_failure == "raise":
            raise ConvergenceError(self._failure(part, failed, *worst))
        self._step_by_step(part)
        self.failed.append(
            {"start": self.exact[0], "stop": part.stop, "rows": failed, "residual": worst[0], "bound": worst[1]}
        )
        self.exact, self.error = (part.stop, self.state), None

    def _step_by_step(self, part: _Part) -> None:
        """From where the states were last those of a loop: the error that a window was handed may grow in it."""
        start, self.state = self.exact
        again = [p for p in self.parts if p.start >= start]
        del self.outputs[len(self.parts) - len(again) :]
        for piece in again:
            states, self.state = Sequential().solve(self.cell, piece.u, self.state, piece.sequence.cu_seqlens)
            self.outputs.append(pytree.tree_leaves(states)[0])

    def _failure(self, part: _Part, rows: list[int], residual: float, bound: float) -> str:
        return (
            f"Newton's method did not certify {type(self.cell).__name__}, whose step is an equation, over steps "
            f"{part.start} to {part.stop}: after {self.sweeps} sweeps {len(rows)} sequences have a residual of "
            f"{residual:.1e} and a bound of {bound:.1e} on the error, both relative to the largest output; "
            f"tol = {self.tol:.0e}. Try a window or more iterations; or run it with rt.Sequential()."
        )

    def stats(self) -> dict[str, Any]:
        """As of other cells; an iteration is a sweep over all times."""
        count, total = len(self.failed), len(self.parts)
        failed = "" if not count else f", {count} of {total} windows then step by step"
        return {
            "iterations": self.sweeps,
            "passes": 0,
            "residual": self.residual,
            "bound": self.bound,
            "certified": not count,
            "jacobian": "what the sweep scans",
            "windows": total,
            "sequential": self.failed,
            "done": f"newton, {self.sweeps} sweeps{failed}",
        }


class _Solution:
    """The equation over one window, for rows of equal length; what lies beyond a packed sequence's end is 0."""

    def __init__(self, cell: ImplicitCell, part: _Part, state: Tree, error: Tree | None, tol: float):
        self.cell, self.sequence, self.tol, self.error = cell, part.sequence, tol, error
        # Contiguous: a drive whose product lies with time innermost would make every sweep slower.
        self.u = pytree.tree_map(lambda x: x.detach().contiguous(), part.u)
        self.state = pytree.tree_map(torch.Tensor.detach, state)
        self.like = pytree.tree_leaves(self.state)[0]

    def find(self, most: int, relax: float) -> tuple[Tensor, Tensor, Tensor, Tree, int]:
        """y (B, T, ...); the residual, the bound (B,); the error of the last state; and the sweeps it took."""
        shape = *leading(self.u).shape[:2], *self.like.shape[1:]
        y, sweeps, target = self._rows(self.like.new_zeros(shape)), 0, MARGIN * self.tol
        while True:
            found = fixed_point(
                lambda y: self._rows(self._sweep(y, self.state)[0]), y, target, most - sweeps, relax, EVERY, self.tol
            )
            y, residual, sweeps = found.y, found.residual, sweeps + found.sweeps
            if not bool((residual <= self.tol).all()):
                return self._packed(y), residual, torch.full_like(residual, float("inf")), None, sweeps
            bound, error = self._certify(y, residual, most, relax)
            # What the residual grows to can be made smaller with it, as far as rounding lets it.
            target = 0.5 * self.tol * float((residual / bound.clamp(min=self.tol)).min())
            lower = 2 * torch.finfo(y.dtype).eps < target < 0.9 * float(residual.max())
            if bool((bound <= self.tol).all()) or sweeps >= most or not lower:
                return self._packed(y), residual, bound, error, sweeps

    def _certify(self, y: Tensor, size: Tensor, most: int, relax: float) -> tuple[Tensor, Tree]:
        eps = torch.finfo(y.dtype).eps
        swept, last = self._sweep(y, self.state)
        moved = self._rows(swept) - y
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, y.shape[1:], generator=generator).mul_(2).sub_(1).to(y)
        moved = moved + eps * y.abs() * signs
        largest = torch.maximum(size, torch.full_like(size, eps))
        if self.error is not None:
            pairs = zip(pytree.tree_leaves(self.error), pytree.tree_leaves(self.state), strict=True)
            largest = torch.stack([largest, *(_relative(e, h) for e, h in pairs)]).amax(0)
        factor = eps**0.5 / largest
        before = self.state
        if self.error is not None:
            before = pytree.tree_map(lambda h, e: h + self._each(factor, e) * e, self.state, self.error)
        offset = self._each(factor, moved) * moved - self._rows(swept) + y
        # To rounding errors, times α: an early one may grow beyond a late one that is much larger.
        least = (factor * eps).clamp(min=rounding(y.dtype) / MARGIN)
        found = fixed_point(
            lambda x: self._rows(self._sweep(x, before)[0]) + offset, y + offset, MARGIN * least, most, relax, EVERY
        )
        nudged = self._sweep(found.y, before)[1]
        error = pytree.tree_map(lambda a, b: (a - b) / self._each(factor, a), nudged, last)
        bound = _relative(found.y - y, y) / factor
        return torch.where(found.residual <= least, bound, float("inf")), error

    # ------------------------------------------------------------------------------------------------ rows and packing

    def _sweep(self, y: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        return self.cell.sweep(self.u, self._packed(y), state, self.sequence)

    def _rows(self, y: Tensor) -> Tensor:
        if self.sequence.cu_seqlens is None:
            return y
        valid = self.sequence.valid(y.device)
        return torch.where(valid.view(*valid.shape, *(1,) * (y.dim() - 2)), self.sequence.pad(y), 0)

    def _packed(self, y: Tensor) -> Tensor:
        return self.sequence.unpad(y)

    @staticmethod
    def _each(factor: Tensor, like: Tensor) -> Tensor:
        return factor.to(like).view(-1, *(1,) * (like.dim() - 1))


def _relative(x: Tensor, y: Tensor) -> Tensor:
    """(B,) the largest |x| relative to the largest |y|; 0 where there is neither."""
    size, scale = (t.flatten(1).abs().amax(1) for t in (x, y))
    return torch.where(size == 0, 0, size / torch.maximum(scale, MARGIN * size))
