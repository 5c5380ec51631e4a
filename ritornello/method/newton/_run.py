"""One run of Newton's method over rows of time: probe, windows, what failed, what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.errors import ConvergenceError, InputError
from ritornello.method._probe import check_pure, few_rows, unseen
from ritornello.method.newton._difference import hides_derivatives
from ritornello.method.newton._implicit import attach
from ritornello.method.newton._layout import Layout, Structure
from ritornello.method.newton._linearise import System
from ritornello.method.newton._memory import longest_window
from ritornello.method.newton._solve import Report, by_steps, rounding_of, solve
from ritornello.method.newton._start import start as start_guess
from ritornello.method.newton._structure import structure_of, touches
from ritornello.typing import Tensor, Tree

if TYPE_CHECKING:
    from ritornello.method.newton.newton import Newton

__all__ = ["HiddenDerivatives", "probe", "solve_cell"]

TOLERANCE = {torch.float64: 1e-10}
SAMPLES = 8
"""Steps of the solution at which the structure of the Jacobian is looked at once more."""
SPLIT, SHORTEST = 16, 32
"""A window that does not converge is cut into so many, of at least so many steps."""


def solve_cell(
    options: Newton, cell: Cell, u: Tree, state: Tree, lengths: Tensor | None
) -> tuple[Tree, dict[str, Any]]:
    """The states at all times, with their derivatives, and what was done.

    Args:
        u: what drives the steps, (B, T, ...), B and T at least 1.
        state: the state before the first step, with leading (B,).
        lengths: (B,) the steps of each row that count; all where None.
    """
    leaves, first = pytree.tree_leaves(u), pytree.tree_leaves(state)
    with torch.inference_mode(False), torch.no_grad(), unseen():
        layout = Layout.of(type(cell).__name__, state)
        structure, system = probe(options, cell, layout, u, state), None
        while system is None:
            run = _Run(options, _system(cell, structure, u, state), lengths)
            try:
                run.all_windows()
                system = run.system
            except _Widened:  # the Jacobian has more at this solution than at the states where it was probed
                structure = probe(options, cell, layout, u, state)
    if torch.is_grad_enabled():
        system = system.restructured(structure.whole)
        states = attach(system, leaves, first, _spans(system, options.window))
    else:
        states = structure.from_order(system.guess)
    return layout.tree(states), run.stats()


class HiddenDerivatives(ConvergenceError):
    """The certificate would not hold."""


def probe(options: Newton, cell: Cell, layout: Layout, u: Tree, state: Tree) -> Structure:
    """Try the step: whether it is pure, and the structure of its Jacobian."""
    few, h = pytree.tree_map(torch.clone, few_rows(u, state))
    check_pure(cell, few, h)
    points = []
    for _ in range(2):  # away from the first state, where derivatives may vanish
        h = cell.step(few, h)
        points.append(pytree.tree_leaves(h))
    h = [torch.cat(pair) for pair in zip(*points, strict=True)]
    few = pytree.tree_map(lambda x: torch.cat([x, x.flip(0)]), few)
    if hides_derivatives(cell, layout, few, h):
        raise HiddenDerivatives(
            f"Newton's method cannot certify {type(cell).__name__}: the derivatives of its step are not those of what "
            "it computes (detach, no_grad, a backward pass of its own), and the bound on the error rests on them. Run "
            "it with rt.Sequential()."
        )
    return structure_of(cell, options.jacobian, layout, few, h)


def _system(cell: Cell, structure: Structure, u: Tree, state: Tree) -> System:
    leaves, spec = pytree.tree_flatten(u)
    first = structure.to_order([x.detach() for x in pytree.tree_leaves(state)], 1)
    h = first.new_empty(first.shape[0], leaves[0].shape[1] + 1, first.shape[1])
    h[:, 0] = first
    # Contiguous: a drive whose product lies with time innermost makes every step three times as long.
    return System(cell, structure, [x.detach().contiguous() for x in leaves], spec, h)


def _spans(system: System, window: int | None) -> list[tuple[int, int]]:
    size = min(longest_window(system.structure, system.h), window or system.length)
    return [(t, min(t + size, system.length)) for t in range(0, system.length, size)]


class _Widened(Exception):
    """The structure of the Jacobian was found to be larger than was thought."""


class _Run:
    """Window after window, in place in `system.h`.

    The error of a window's last state runs on through the next ones, and is carried along: a chaotic cell passes in
    each of many short windows, and not in all of them together.
    """

    def __init__(self, options: Newton, system: System, lengths: Tensor | None):
        self.options, self.system, self.lengths = options, system, lengths
        self.tol = TOLERANCE.get(system.h.dtype, 1e-5) if options.tol is None else options.tol
        self.spans = _spans(system, options.window)
        self.reports: list[Report] = []
        self.passes = 0
        self.error = torch.zeros_like(system.h[:, 0])
        self.exact = torch.zeros(len(system.h), dtype=torch.long, device=system.h.device)
        self.failed: list[dict[str, Any]] = []

    def all_windows(self) -> None:
        for start, stop in self.spans:
            self._window(start, stop)
        self._look_again(self.system)
        if self.lengths is not None:  # where nothing counts any state will do that is one
            counts = self._counts(0, self.system.length)
            assert counts is not None
            self.system.guess.copy_(torch.where(counts.unsqueeze(-1), self.system.guess, self.system.h[:, :1]))

    def _counts(self, start: int, stop: int) -> Tensor | None:
        if self.lengths is None:
            return None
        return torch.arange(start, stop, device=self.lengths.device) < self.lengths.unsqueeze(1)

    def _window(self, start: int, stop: int, splits: int = 2) -> None:
        window, counts = self.system.window(start, stop), self._counts(start, stop)
        self.passes = max(self.passes, start_guess(window, self.tol, counts))
        options, carried = self.options, self.error
        report = solve(window, self.tol, options.most, options.damping, counts, carried)
        self.reports.append(report)
        self.error = report.rounding
        if bool(report.certified.all()):
            return
        self._look_again(window)
        rows = (~report.certified).nonzero()[:, 0]
        if self._may_split(stop - start, splits) and bool((report.residual[rows] > self.tol).any()):
            self.reports.pop()
            self.error = carried
            size = max((stop - start) // SPLIT, SHORTEST)
            for time in range(start, stop, size):
                self._window(time, min(time + size, stop), splits - 1)
            return
        residual, bound = (float(x[rows].max()) for x in (report.residual, report.bound))
        if options.on_failure == "raise":
            raise ConvergenceError(self._failure(start, stop, rows, residual, bound))
        by_steps(window, rows)
        self._check_numbers(window, rows, counts, start)
        self.failed.append({"start": start, "stop": stop, "rows": rows.tolist(), "residual": residual, "bound": bound})
        self._account(window, rows, counts, carried, start, stop)

    def _may_split(self, length: int, splits: int) -> bool:
        """Short windows converge where long ones run away; they are tried unless the user has chosen a length."""
        return self.options.window is None and splits > 0 and length > SHORTEST

    def _account(
        self, window: System, rows: Tensor, counts: Tensor | None, carried: Tensor, start: int, stop: int
    ) -> None:
        """What the error has grown to after a window that was run step by step from a state that had one; where it is
        no longer within the tolerance, go back to where the states are those of a run step by step, and run from there.
        """
        later = rows[self.exact[rows] < start]
        if len(later):
            inside = None if counts is None else counts[later]
            _, rounding, self.error[later] = rounding_of(window.rows(later), inside, carried[later])
            rows = torch.cat([rows[self.exact[rows] == start], later[~(rounding <= self.tol)]])
        for begin in self.exact[rows].unique().tolist():
            some = rows[self.exact[rows] == begin]
            if begin < start:
                by_steps(self.system.window(begin, stop), some)
                self.failed[-1]["start"] = min(self.failed[-1]["start"], begin)
            self.exact[some], self.error[some] = stop, 0

    def _failure(self, start: int, stop: int, rows: Tensor, residual: float, bound: float) -> str:
        where = f"T = {self.system.length}" + (f", steps {start} to {stop}" if len(self.spans) > 1 else "")
        return (
            f"Newton's method did not certify {type(self.system.cell).__name__} over {where}: after "
            f"{self.options.most} iterations at most, {len(rows)} of {len(self.system.h)} sequences have a "
            f"residual of {residual:.1e} and a bound of {bound:.1e} on the error, both relative to the largest state; "
            f"tol = {self.tol:.0e}. A bound far above the residual means a chaotic cell: run it with rt.Sequential(). "
            "Else try a window, damping=1.0 or more iterations."
        )

    def _look_again(self, system: System) -> None:
        """Check the structure of the Jacobian at a few steps of what was found."""
        generator = torch.Generator().manual_seed(0)
        row = torch.randint(len(system.h), (SAMPLES,), generator=generator)
        time = torch.randint(system.length, (SAMPLES,), generator=generator)
        if touches(system.cell, self.options.jacobian, system.structure, *system.samples(row, time)):
            raise _Widened

    def _check_numbers(self, window: System, rows: Tensor, counts: Tensor | None, start: int) -> None:
        bad = ~window.guess[rows].isfinite().all(-1)
        if counts is not None:
            bad &= counts[rows]
        if bool(bad.any()):
            row, time = bad.nonzero()[bad.nonzero()[:, 1].argmin()].tolist()
            raise InputError(
                f"The state of {type(window.cell).__name__} is not finite (NaN or infinite) from step {start + time} "
                f"of sequence {int(rows[row])} on. Look for it in the input, or bound the step."
            )

    def stats(self) -> dict[str, Any]:
        """Iterations, passes before them, residual and bound (the most of any window and sequence, those that failed
        included), whether all were certified, the structure of the Jacobian, the number of windows, and those that were
        run step by step."""
        iterations, residual, bound = (
            float(torch.stack([getattr(r, name).max() for r in self.reports]).max())
            for name in ("iterations", "residual", "bound")
        )
        count, total = len(self.failed), len(self.reports)
        failed = "" if not count else f", {count} of {total} windows then step by step"
        return {
            "iterations": int(iterations),
            "passes": self.passes,
            "residual": residual,
            "bound": bound,
            "certified": not count,
            "jacobian": str(self.system.structure),
            "windows": total,
            "sequential": self.failed,
            "done": f"newton, {int(iterations)} iterations, {self.system.structure}{failed}",
        }
