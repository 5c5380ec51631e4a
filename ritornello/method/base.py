"""What a method is: a value that says how a recurrence is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from ritornello.cell import Cell
from ritornello.errors import BackendError, InputError
from ritornello.implicit import ImplicitCell
from ritornello.kernels.registry import active_method, explaining
from ritornello.ops._op import transforms
from ritornello.sequence import leading
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Method", "Solution", "check_count"]

Recurrence = Transition | Cell


class Solution(NamedTuple):
    """The outputs at all times (of a cell: its states), the last state, and what a method tells of how it went."""

    outputs: Any
    state: Tree
    stats: dict[str, Any]


class Method(ABC):
    """How to run a recurrence. Methods are frozen dataclasses; every one gives the same numbers."""

    def solve(
        self, recurrence: Recurrence, query: Tree, state: Tree, cu_seqlens: Tensor | None = None
    ) -> tuple[Any, Tree]:
        """Run `recurrence` over all times.

        Args:
            recurrence: a Transition, or a Cell that is not affine.
            query: what reads a transition's state; of a cell, what drives its steps (u, with leading (B, T)).
            state: the state before the first step.
            cu_seqlens: (N + 1,) the bounds of sequences packed along time, with B = 1.

        Returns:
            The outputs at all times (of a cell: its states), and the last state.

        Raises:
            BackendError: this method cannot run this recurrence; the ones that can are named.
        """
        return self.solution(recurrence, query, state, cu_seqlens)[:2]

    def solution(self, recurrence: Recurrence, query: Tree, state: Tree, cu_seqlens: Tensor | None = None) -> Solution:
        """`solve`, and what the method tells of how it went."""
        reason = self.refusal(recurrence)
        if reason is not None:
            raise BackendError(
                f"{self} cannot run {type(recurrence).__name__}: {reason} These can: {able(recurrence)}."
            )
        query = () if query is None else query  # a pytree without leaves
        if not explaining():
            return self._solution(recurrence, query, state, cu_seqlens)
        with active_method(str(self)):
            return self._solution(recurrence, query, state, cu_seqlens)

    def _solution(self, recurrence: Recurrence, query: Tree, state: Tree, cu_seqlens: Tensor | None) -> Solution:
        if isinstance(recurrence, Transition):
            return _as_solution(self._solve_transition(recurrence, query, state, cu_seqlens))
        device = leading(query).device.type
        if not torch.is_autocast_enabled(device):  # entering a context costs as much as a small step
            return _as_solution(self._solve_cell(recurrence, query, state, cu_seqlens))
        # Steps run in the state's precision, as kernels do: autocast would round each of a thousand products.
        with torch.autocast(device, enabled=False):
            return _as_solution(self._solve_cell(recurrence, query, state, cu_seqlens))

    @abstractmethod
    def refusal(self, recurrence: Recurrence) -> str | None:
        """Why this method cannot run the recurrence, as a sentence, or None where it can."""

    @abstractmethod
    def _solve_transition(
        self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None
    ) -> tuple[Any, Tree]: ...

    @abstractmethod
    def _solve_cell(
        self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None
    ) -> tuple[Any, Tree] | Solution: ...


def check_count(method: Method, name: str, of: str, instead: str = "") -> None:
    """Refuse an option that is no whole number from 1 on.

    Args:
        of: what is counted, for the message.
        instead: what None means, where None is allowed.
    """
    value = getattr(method, name)
    if value is None and instead:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        more = f", or None for {instead}" if instead else ""
        raise InputError(f"`{name}` of {type(method).__name__} is {value!r}; wanted at least 1 {of}{more}.")


def _as_solution(found: tuple[Any, Tree] | Solution) -> Solution:
    return found if isinstance(found, Solution) else Solution(*found, {})


@lru_cache
def name_of(method: Method) -> str:
    """``str(method)``: writing it out takes as long as a small step."""
    return str(method)


def has_fused(recurrence: Recurrence) -> bool:
    """Whether one call of an op runs the recurrence."""
    if isinstance(recurrence, Transition):
        return recurrence.op is not None
    return type(recurrence).fused is not Cell.fused


def transformed() -> str | None:
    """Why a method with a backward pass of its own cannot run here, as a sentence; None where it can."""
    if not transforms():
        return None
    return "torch.func's transforms (grad, vmap, jvp and their like) follow a loop over the step, and not this method."


def able(recurrence: Recurrence) -> str:
    """The methods that can run a recurrence, for messages."""
    names = ["Auto()", "Sequential()"]
    if has_fused(recurrence):
        names.append("Fused()")
    if isinstance(recurrence, Transition):
        names += ["Scan()", "Chunked()"]
    elif transformed() is None or isinstance(recurrence, ImplicitCell):
        names += ["Newton()"] if isinstance(recurrence, ImplicitCell) else ["Compiled()", "Newton()"]
    return ", ".join(names)
