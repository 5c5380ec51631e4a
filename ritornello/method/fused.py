"""One call of an op."""

from __future__ import annotations

from dataclasses import dataclass

from ritornello.cell import Cell
from ritornello.method.base import Method, Recurrence, has_fused
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Fused"]


@dataclass(frozen=True)
class Fused(Method):
    """All times in one call of the recurrence's op, on the current backend."""

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None if has_fused(recurrence) else "no op runs it in one call."

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        return t.scan_read(query, state, cu_seqlens)

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        return cell.fused(u, state, cu_seqlens)
