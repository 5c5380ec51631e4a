"""The method that chooses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.errors import BackendError, InputError
from ritornello.implicit import ImplicitCell
from ritornello.kernels.native import available
from ritornello.method import cost
from ritornello.method.base import Method, Recurrence, Solution, has_fused, name_of
from ritornello.method.compiled import Compiled
from ritornello.method.fused import Fused
from ritornello.method.newton import Newton
from ritornello.method.scan import Scan
from ritornello.method.sequential import Sequential
from ritornello.ops._op import transforms
from ritornello.sequence import Sequence, leading
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Auto", "weighed"]

SHORT = 64
"""Steps up to which a cell's loop is run without looking further: nothing could gain a millisecond."""
SEQUENTIAL, FUSED = Sequential(), Fused()


@dataclass(frozen=True)
class Auto(Method):
    """Choose: one call of an op where there is a kernel, a scan of a transition; for a cell of one's own what a small
    cost model (`ritornello.method.cost`) tells from the sizes, the device and the step: Newton's method or a loop.

    What was chosen stands in ``stats["method"]``, the seconds that were expected in ``stats["estimates"]``.

    Args:
        compile: it may also choose `Compiled`, whose first call takes many seconds.
    """

    compile: bool = False

    def __post_init__(self):
        if not isinstance(self.compile, bool):
            raise InputError(f"`compile` of Auto is {self.compile!r}; wanted True or False.")

    def choose(self, recurrence: Recurrence) -> Method:
        """The method that will run `recurrence`; this one where that is decided by the sizes."""
        if has_fused(recurrence) and (isinstance(recurrence, Transition) or _has_kernel(recurrence)):
            return FUSED
        return Scan() if isinstance(recurrence, Transition) else self

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        return self.choose(t).solve(t, query, state, cu_seqlens)

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        method, told = self.choose(cell), {}
        if method is self:
            method, told = self.advise(cell, u, state, cu_seqlens)
        try:
            outputs, last, stats = method.solution(cell, u, state, cu_seqlens)
        except BackendError as refused:
            if not isinstance(method, Compiled):
                raise
            method, told = Sequential(), {**told, "refused": str(refused)}
            outputs, last, stats = method.solution(cell, u, state, cu_seqlens)
        if isinstance(method, Newton):
            cost.learn(cell, state, stats)
        return Solution(outputs, last, {"method": name_of(method), **told, **stats})

    def advise(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None = None) -> tuple[Method, dict]:
        """The method for a cell that drives its steps with u (B, T, ...), and the seconds that each would take."""
        lead = leading(u)
        # A step that solves an equation takes a millisecond: there any two of them are better taken together.
        short = 1 if isinstance(cell, ImplicitCell) else SHORT
        if lead.shape[1] <= short or lead.shape[0] == 0 or torch.compiler.is_compiling() or transforms():
            return Sequential(), {}
        sequence = Sequence.of(lead, cu_seqlens)
        rows = sequence.pad(u)
        batch, length = leading(rows).shape[:2]
        if batch * length == 0:
            return Sequential(), {}
        tensors = [*pytree.tree_leaves((u, state)), *cell.parameters()]
        training = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        found = cost.estimates(cost.character(cell, rows, state), batch, length, training, lead.device.type)
        if not self.compile:
            found.pop("Compiled", None)
        methods = {"Sequential": Sequential(), "Compiled": Compiled(), "Newton": Newton()}
        chosen = methods[min(found, key=found.__getitem__)]
        log = _weighed.get()
        if log is not None:
            log.append((type(cell).__name__, chosen, found))
        return chosen, {"estimates": found}


_weighed: ContextVar[list[tuple[str, Method, dict[str, float]]] | None] = ContextVar("ritornello_weighed", default=None)


@contextmanager
def weighed() -> Iterator[list[tuple[str, Method, dict[str, float]]]]:
    """List what `Auto` weighed inside: the cell, the method it chose, and the seconds that it expected of each."""
    log: list[tuple[str, Method, dict[str, float]]] = []
    token = _weighed.set(log)
    try:
        yield log
    finally:
        _weighed.reset(token)


def _has_kernel(cell: Cell) -> bool:
    """Whether the op of a cell has more than a loop in PyTorch, where the cell is."""
    if cell.fused_anywhere:
        return True
    if torch.compiler.is_compiling():
        return True
    # At every call, for a cell may have moved; its own parameters first, for walking through its parts takes long.
    first = next((p for p in cell._parameters.values() if p is not None), None)
    first = next(cell.parameters(), None) if first is None else first
    return first is None or (first.device.type == "cpu" and available())
