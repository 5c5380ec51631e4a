"""Step by step: the definition of what every other method computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.kernels.registry import record
from ritornello.method.base import Method, Recurrence
from ritornello.sequence import Sequence, leading
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree, accumulated

__all__ = ["Sequential"]


@dataclass(frozen=True)
class Sequential(Method):
    """A loop over `step`, never a kernel. Time O(T) steps, memory O(T·state) for the backward pass."""

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        record(type(t).__name__, "loop")
        sequence = Sequence.of(t.lead, cu_seqlens)
        dtype = t.lead.dtype
        rows = (t if cu_seqlens is None else t.padded(sequence)).wide()
        if rows.length == 0:
            return t.scan_read(query, state, cu_seqlens)  # nothing to step over: the op knows the output's shape
        queries, shape = pytree.tree_flatten(pytree.tree_map(accumulated, sequence.pad(query)))
        columns = [q.unbind(1) for q in queries]
        outputs = []
        # One unbind for all times: indexing slices of a long tensor makes autograd's backward quadratic in T.
        for time, step in enumerate(rows.unbind()):
            before, state = state, step.apply(state)
            outputs.append(step.read(pytree.tree_unflatten([c[time] for c in columns], shape), before, state))
        return sequence.unpad(torch.stack(outputs, 1)).to(dtype), state

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        record(type(cell).__name__, "loop")
        lead = leading(u)
        sequence = Sequence.of(lead, cu_seqlens)
        rows, shape = pytree.tree_flatten(sequence.pad(u))
        length = rows[0].shape[1]
        columns = [r.unbind(1) for r in rows]
        valid = None if cu_seqlens is None else sequence.valid(lead.device).unbind(1)
        states = []
        for time in range(length):
            new = cell.step(pytree.tree_unflatten([c[time] for c in columns], shape), state)
            state = new if valid is None else _keep(valid[time], new, state)
            states.append(state)
        if not states:
            none = pytree.tree_map(lambda s: s.new_zeros((*lead.shape[:2], *s.shape[1:])), state)
            return none, state
        return sequence.unpad(_stack(states)), state


def _keep(valid: Tensor, new: Tree, old: Tree) -> Tree:
    """The new state where a sequence still runs, the old one where it has ended."""
    return pytree.tree_map(lambda n, o: torch.where(valid.view(-1, *(1,) * (n.dim() - 1)), n, o), new, old)


def _stack(states: list[Tree]) -> Tree:
    return pytree.tree_map(lambda *times: torch.stack(times, 1), *states)
