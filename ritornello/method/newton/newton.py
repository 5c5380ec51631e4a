"""The method as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.errors import InputError
from ritornello.implicit import ImplicitCell, Outputs
from ritornello.kernels.registry import record
from ritornello.method.base import Method, Recurrence, Solution, check_count, transformed
from ritornello.method.newton._equation import solve_equation
from ritornello.method.newton._run import HiddenDerivatives, solve_cell
from ritornello.method.scan import Scan
from ritornello.method.sequential import Sequential
from ritornello.sequence import Sequence, leading
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Newton"]

ITERATIONS, SWEEPS = 10, 100
"""Before a window has failed, unless the user says otherwise; sweeps are of a cell whose step is an equation."""
JACOBIANS = ("auto", "diagonal", "block", "dense", "quasi")


@dataclass(frozen=True, repr=False)
class Newton(Method):
    """All times at once: linearise the step at a guess, scan, repeat, until the error of every sequence is bounded.

    Args:
        tol: the error that is accepted, relative to the largest |h|; 1e-10 in float64 and 1e-5 below where None.
        max_iterations: after so many a window has failed; one of no given length is then cut into shorter ones, twice.
            10 where None; 100 sweeps of a cell whose step is an equation.
        damping: Levenberg's λ at the start, for cells whose plain iterates run away; it vanishes as they settle.
        window: times that are solved at once, the state handed on between; None: all, or as many as the memory has room
            for.
        jacobian: ``"auto"`` finds the Jacobian's structure from the step; ``"diagonal"``, ``"block"`` (diagonals across
            several state tensors) and ``"dense"`` state it, and are checked; ``"quasi"`` keeps what each channel does
            to itself and iterates over the rest. Of a cell whose step is an equation its own scan is kept.
        on_failure: ``"sequential"`` runs the windows that failed step by step; ``"raise"`` raises ConvergenceError.

    Source: Lim et al. 2024, arXiv:2309.12252; Gonzalez et al. 2024, arXiv:2407.19115; Danieli et al. 2025,
    arXiv:2510.21450. The bound is ours: docs/decisions/0020.
    """

    tol: float | None = None
    max_iterations: int | None = None
    damping: float = 0.0
    window: int | None = None
    jacobian: str = "auto"
    on_failure: str = "sequential"

    def __post_init__(self):
        if self.tol is not None and not (_is_number(self.tol) and 0 < self.tol < 1):
            raise InputError(f"`tol` of Newton is {self.tol!r}; wanted a number between 0 and 1, or None.")
        check_count(self, "max_iterations", "iteration", "10, or 100 sweeps of an equation")
        if not (_is_number(self.damping) and 0 <= self.damping < math.inf):
            raise InputError(
                f"`damping` of Newton is {self.damping!r}; wanted 0 for none, or a positive number like 1."
            )
        check_count(self, "window", "step", "all")
        if self.jacobian not in JACOBIANS:
            raise InputError(f"`jacobian` of Newton is {self.jacobian!r}; it takes {', '.join(JACOBIANS)}.")
        if self.on_failure not in ("sequential", "raise"):
            raise InputError(f"`on_failure` of Newton is {self.on_failure!r}; it takes 'sequential' or 'raise'.")

    def __repr__(self) -> str:
        changed = (f for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Newton({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"

    @property
    def most(self) -> int:
        """Iterations before a window has failed."""
        return ITERATIONS if self.max_iterations is None else self.max_iterations

    @property
    def most_sweeps(self) -> int:
        """The same for a cell whose step is an equation."""
        return SWEEPS if self.max_iterations is None else self.max_iterations

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None if isinstance(recurrence, Transition | ImplicitCell) else transformed()

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        # Newton's first step solves an affine recurrence; it is a scan.
        return Scan()._solve_transition(t, query, state, cu_seqlens)

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        if torch.compiler.is_compiling():
            # What it does next hangs on numbers: traced, it takes minutes and falls into dozens of graphs.
            reason = "Newton's method runs outside of the graph; rt.Compiled() compiles a cell's steps."
            eagerly: Any = torch.compiler.disable(self._solve_eagerly, reason=reason)
            return eagerly(cell, u, state, cu_seqlens)
        return self._solve_eagerly(cell, u, state, cu_seqlens)

    def _solve_eagerly(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None) -> Solution:
        lead = leading(u)
        sequence = Sequence.of(lead, cu_seqlens)
        rows = sequence.pad(u)
        first = leading(rows)
        if first.shape[0] * first.shape[1] == 0:
            return Sequential().solution(cell, u, state, cu_seqlens)
        if isinstance(cell, ImplicitCell):
            y, last, stats = solve_equation(self, cell, u, state, sequence)
            record(type(cell).__name__, stats["done"])
            return Solution(Outputs(y), last, stats)
        lengths = None if cu_seqlens is None else sequence.lengths(lead.device)
        try:
            states, stats = solve_cell(self, cell, rows, state, lengths)
        except HiddenDerivatives as refused:
            if self.on_failure == "raise":
                raise
            return self._step_by_step(cell, u, state, cu_seqlens, str(refused))
        record(type(cell).__name__, stats["done"])
        pairs = zip(pytree.tree_leaves(states), pytree.tree_leaves(state), strict=True)
        last = pytree.tree_unflatten([_last(*pair, lengths) for pair in pairs], pytree.tree_structure(state))
        return Solution(sequence.unpad(states), last, stats)

    def _step_by_step(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None, why: str) -> Solution:
        """Nothing of it is Newton's; `stats` has the same names."""
        outputs, last, _ = Sequential().solution(cell, u, state, cu_seqlens)
        unknown = {"iterations": 0, "passes": 0, "residual": math.inf, "bound": math.inf, "certified": False}
        whole = {"start": 0, "stop": leading(u).shape[1], "residual": math.inf, "bound": math.inf, "why": why}
        told = {"jacobian": "not that of the step", "windows": 1, "sequential": [whole], "done": f"step by step: {why}"}
        return Solution(outputs, last, unknown | told)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _last(h: Tensor, first: Tensor, lengths: Tensor | None) -> Tensor:
    """The state after the last step of each sequence; the first one where it has none."""
    if lengths is None:
        return h[:, -1]
    row = torch.arange(len(lengths), device=h.device)
    found = h[row, (lengths - 1).clamp(min=0)]
    return torch.where((lengths > 0).view(-1, *(1,) * (h.dim() - 2)), found, first)
