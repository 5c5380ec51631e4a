"""A cell over a stretch of time as a system of equations, linearised at a guess."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.method.newton._layout import Structure
from ritornello.method.newton._structure import derivatives
from ritornello.transition import Block, Dense, Diagonal, Transition
from ritornello.typing import Tensor, Tree

__all__ = ["System", "slabs", "usable"]

SLAB = 1 << 16
"""Numbers of the state that are stepped at once: what a step makes on its way stays in the second cache."""


def slabs(rows: int, length: int, width: int, numbers: int = SLAB) -> Iterator[tuple[slice, slice]]:
    """Cut (rows, length) into pieces of about `numbers` / `width` steps: whole rows where they are short."""
    steps = max(numbers // max(width, 1), 1)
    many = max(steps // max(length, 1), 1)
    for row in range(0, rows, many):
        for time in range(0, length, steps):
            yield slice(row, min(row + many, rows)), slice(time, min(time + steps, length))


@dataclass(frozen=True, eq=False)
class System:
    """F_t(h) = f(h_{t−1}, u_t) − h_t = 0 for the times of a window.

    Args:
        u: the leaves of what drives the steps, (B, T, ...); `spec` is their nest.
        h: (B, T + 1, N) the state before the first step, then the guess at all times; in the structure's order.
    """

    cell: Cell
    structure: Structure
    u: list[Tensor]
    spec: Any
    h: Tensor

    @property
    def length(self) -> int:
        return self.h.shape[1] - 1

    @property
    def width(self) -> int:
        return self.h.shape[2]

    @property
    def guess(self) -> Tensor:
        """(B, T, N), a view."""
        return self.h[:, 1:]

    def rows(self, index: Tensor) -> System:
        """The system of some of the sequences."""
        return replace(self, u=[x[index] for x in self.u], h=self.h[index])

    def window(self, start: int, stop: int) -> System:
        """The system of the times from `start` to `stop`; its `h` is a view of this one's."""
        return replace(self, u=[x[:, start:stop] for x in self.u], h=self.h[:, start : stop + 1])

    def restructured(self, structure: Structure | None) -> System:
        """The same states in the order of another structure; of this one where None."""
        if structure is None:
            return self
        return replace(self, structure=structure, h=structure.to_order(self.structure.from_order(self.h), 2))

    def samples(self, row: Tensor, time: Tensor) -> tuple[Tree, list[Tensor]]:
        """The input and the state before of some steps, with leading (R,)."""
        u = pytree.tree_unflatten([x[row, time] for x in self.u], self.spec)
        return u, self.structure.from_order(self.h[row, time])

    # ----------------------------------------------------------------------------------------------------- evaluation

    def _inputs(self, row: slice, time: slice) -> Tree:
        return pytree.tree_unflatten([usable(x[row, time].flatten(0, 1)) for x in self.u], self.spec)

    def _step(self, row: slice, time: slice, h: Tensor) -> Tensor:
        before = self.structure.from_order(h.flatten(0, 1))
        new = self.cell.step(self._inputs(row, time), self.structure.layout.tree(before))
        return self.structure.to_order(pytree.tree_leaves(new), 1).unflatten(0, h.shape[:2])

    def residual(self) -> Tensor:
        """f(h_{t−1}, u_t) − h_t, (B, T, N)."""
        residual = torch.empty_like(self.guess, memory_format=torch.contiguous_format)
        for row, time in slabs(self.guess.shape[0], self.length, self.width):
            torch.sub(self._step(row, time, self.h[row, time]), self.guess[row, time], out=residual[row, time])
        return residual

    def linearise(self) -> tuple[Tensor, Tensor]:
        """The Jacobians ∂f/∂h (B, T, \\*block_shape) and the residuals f(h_{t−1}, u_t) − h_t (B, T, N)."""
        jacobian = self.h.new_empty(*self.guess.shape[:2], *self.structure.block_shape)
        residual = torch.empty_like(self.guess, memory_format=torch.contiguous_format)
        for row, time, stepped, block in self.pieces():
            jacobian[row, time] = block
            torch.sub(stepped, self.guess[row, time], out=residual[row, time])
        return jacobian, residual

    def pieces(self) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """For slabs of rows and times: f(h_{t−1}, u_t) (b, t, N) and ∂f/∂h (b, t, \\*block_shape)."""
        s = self.structure
        true = s if s.whole is None else s.whole
        rows, length = self.guess.shape[:2]
        for row, time in slabs(rows, length, self.width * (true.size if true.dense else 1)):
            before = self.h[row, time]
            lead = (before.shape[0], before.shape[1])
            stepped, block = self.derivatives(self._inputs(row, time), s.from_order(before.flatten(0, 1)))
            yield row, time, s.to_order(stepped, 1).unflatten(0, lead), block.unflatten(0, lead)

    def derivatives(self, u: Tree, h: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """One step of each row, the leaves of u and h with leading (R,), and of its Jacobian what is kept,
        (R, \\*block_shape)."""
        s = self.structure
        stepped, block = derivatives(self.cell, s if s.whole is None else s.whole, u, h)
        return stepped, block if s.whole is None else block.flatten(1)[:, s.kept]

    # -------------------------------------------------------------------------------------------------------- solution

    def transition(self, jacobian: Tensor, added: Tensor) -> Transition:
        """e_t = J_t e_{t−1} + b_t."""
        kind = Diagonal if self.structure.size == 1 else Dense if self.structure.dense else Block
        return kind(jacobian, added.unflatten(-1, self.structure.state_shape))

    def scan(self, jacobian: Tensor, added: Tensor, start: Tensor | None = None) -> Tensor:
        """e_t = J_t e_{t−1} + b_t at all times, (B, T, N), from `start` (B, N), or 0."""
        start = added.new_zeros(added.shape[0], self.width) if start is None else start
        t = self.transition(jacobian, added)
        return t.scan(start.unflatten(-1, self.structure.state_shape))[0].flatten(2)  # type: ignore[arg-type]

    def peak(self, e: Tensor, counts: Tensor | None) -> Tensor:
        """(B, L) the largest |e| (B, T, N) in each of the state's L tensors; NaN where there is one.

        Args:
            counts: (B, T) bool, the times that count; all where None.
        """
        if counts is not None:
            e = torch.where(counts.unsqueeze(-1), e, 0)
        most = e.new_zeros(e.shape[0], len(self.structure.layout.shapes))
        if e.shape[1] == 0:
            return most
        peak = torch.maximum(e.amax(1), -e.amin(1))  # not aminmax, which takes 20 times as long along a dimension
        return most.scatter_reduce(1, self.structure.owners.to(e.device).expand_as(peak), peak, "amax")

    @staticmethod
    def ratio(peak: Tensor, scale: Tensor) -> Tensor:
        """(B,) the largest of (B, L) numbers, each relative to the scale of its tensor."""
        return (peak / scale.clamp(min=torch.finfo(scale.dtype).tiny)).amax(1)


def usable(x: Tensor) -> Tensor:
    """x, or a copy that autograd can record where x was made in inference mode."""
    return x.clone() if x.is_inference() else x
