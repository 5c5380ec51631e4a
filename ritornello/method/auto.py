"""The method that chooses."""

from __future__ import annotations

from dataclasses import dataclass

from ritornello.cell import Cell
from ritornello.method.base import Method, Recurrence, has_fused
from ritornello.method.fused import Fused
from ritornello.method.scan import Scan
from ritornello.method.sequential import Sequential
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Auto"]


@dataclass(frozen=True)
class Auto(Method):
    """Choose: one call of an op where there is one, else a scan of a transition, else a loop over the cell's step."""

    def choose(self, recurrence: Recurrence) -> Method:
        """The method that will run `recurrence`."""
        if has_fused(recurrence):
            return Fused()
        return Scan() if isinstance(recurrence, Transition) else Sequential()

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        return self.choose(t).solve(t, query, state, cu_seqlens)

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        return self.choose(cell).solve(cell, u, state, cu_seqlens)
