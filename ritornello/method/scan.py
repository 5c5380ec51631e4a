"""A parallel scan over time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.kernels.registry import record
from ritornello.method.base import Method, Recurrence, check_count
from ritornello.sequence import Sequence
from ritornello.transition import MatrixTransition, Selective, Softmax, Transition, prefixes
from ritornello.typing import Tensor, Tree

__all__ = ["Scan"]


@dataclass(frozen=True)
class Scan(Method):
    """Depth O(log T): steps are composed along a tree, then all act on the first state at once.

    A transition that is not closed under composition (a matrix state, or Mamba's) is first cut into segments of
    `segment` steps; their summaries are scanned, and all segments are then run at once from their own first states.
    """

    segment: int = 64

    def __post_init__(self):
        check_count(self, "segment", "step")

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None if isinstance(recurrence, Transition) else "it is not affine, so its steps do not compose."

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        sequence = Sequence.of(t.lead, cu_seqlens)
        rows = t if cu_seqlens is None else t.padded(sequence)
        if rows.length == 0:
            return t.scan_read(query, state, cu_seqlens)
        query = sequence.pad(query)
        if isinstance(t, MatrixTransition | Selective):
            outputs, last = self._by_segments(rows, query, state)
        else:
            outputs, last = _by_steps(rows, query, state)
        return sequence.unpad(outputs).to(t.lead.dtype), last

    def _by_segments(self, t: Transition, query: Tree, state: Tensor) -> tuple[Tensor, Tensor]:
        batch, length = t.batch, t.length
        count = -(-length // self.segment)
        missing = count * self.segment - length

        def cut(x: Tensor) -> Tensor:
            if missing:
                x = torch.cat([x, x[:, -1:].expand(-1, missing, *x.shape[2:])], 1)
            return x.unflatten(1, (count, self.segment)).flatten(0, 1)

        steps = torch.arange(count * self.segment, device=t.lead.device)
        valid = (steps < length).expand(batch, -1).reshape(batch * count, self.segment)
        segments = t.map(cut).masked(valid)
        summaries = segments.summary().map(lambda x: x.unflatten(0, (batch, count)))
        ends = prefixes(summaries).apply(state.unsqueeze(1).to(summaries.lead.dtype))
        starts = torch.cat([state.unsqueeze(1), ends[:, :-1]], 1).flatten(0, 1)
        outputs, _ = segments.scan_read(pytree.tree_map(cut, query), starts)
        return outputs.unflatten(0, (batch, count)).flatten(1, 2)[:, :length], ends[:, -1]

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        raise AssertionError("refused before")


def _by_steps(t: Transition, query: Tree, state: Tree) -> tuple[Tensor, Tree]:
    record(type(t).__name__, "tree")
    wide = t.wide()
    states = prefixes(wide.as_element()).apply(pytree.tree_map(lambda s: s.unsqueeze(1), state))
    before = states
    if isinstance(wide, Softmax) and wide.bonus is not None:  # the others read the state after a step
        before = pytree.tree_map(lambda s, all: torch.cat([s.unsqueeze(1), all[:, :-1]], 1), state, states)
    return wide.read(query, before, states), pytree.tree_map(lambda s: s[:, -1], states)
