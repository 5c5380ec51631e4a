"""Chunk by chunk, each in parallel within."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.method.base import Method, Recurrence, check_count
from ritornello.sequence import Sequence
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Chunked"]


@dataclass(frozen=True)
class Chunked(Method):
    """Chunks of `size` steps one after the other: within a chunk the transition's algebra, between them the state."""

    size: int = 64

    def __post_init__(self):
        check_count(self, "size", "step")

    def refusal(self, recurrence: Recurrence) -> str | None:
        return None if isinstance(recurrence, Transition) else "it is not affine, so its steps do not compose."

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        sequence = Sequence.of(t.lead, cu_seqlens)
        rows = t if cu_seqlens is None else t.padded(sequence)
        if rows.length <= self.size and cu_seqlens is None:
            return t.scan_read(query, state)
        queries, shape = pytree.tree_flatten(sequence.pad(query))
        outputs = []
        for start in range(0, max(rows.length, 1), self.size):
            span = slice(start, start + self.size)
            part = pytree.tree_unflatten([q[:, span] for q in queries], shape)
            output, state = rows.map(lambda x, s=span: x[:, s]).scan_read(part, state)
            outputs.append(output)
        return sequence.unpad(torch.cat(outputs, 1)), state

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        raise AssertionError("refused before")
