"""A state's tensors as one vector, and how the numbers of that vector act on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ritornello.errors import InputError
from ritornello.typing import FLOATING, Tensor, Tree

__all__ = ["MOST_STATES", "Layout", "Structure"]

MOST_STATES = 4
"""Groups of at most so many numbers are kept as blocks of diagonals, larger ones as dense matrices."""


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tensors of a state (without their leading dimensions) lie in one vector of `total` numbers."""

    spec: Any
    shapes: tuple[torch.Size, ...]

    @staticmethod
    def of(name: str, state: Tree) -> Layout:
        """The layout of a state with leading (B,), which must be real, floating and of one dtype."""
        leaves, spec = pytree.tree_flatten(state)
        dtypes = {x.dtype for x in leaves}
        if len(dtypes) != 1 or next(iter(dtypes)) not in FLOATING:
            raise InputError(
                f"The state of {name} holds {', '.join(sorted(map(str, dtypes)))}; Newton differentiates all of it and "
                "wants one real floating dtype. Keep counters in `drive`, or run it with rt.Sequential()."
            )
        return Layout(spec, tuple(x.shape[1:] for x in leaves))

    @cached_property
    def sizes(self) -> list[int]:
        return [s.numel() for s in self.shapes]

    @property
    def total(self) -> int:
        return sum(self.sizes)

    def owners(self) -> Tensor:
        """(N,) the tensor to which each number belongs."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))

    def flat(self, leaves: Sequence[Tensor], lead: int) -> Tensor:
        """Tensors with `lead` leading dimensions → one of (..., N)."""
        flat = [x.reshape(*x.shape[:lead], size) for x, size in zip(leaves, self.sizes, strict=True)]
        return flat[0] if len(flat) == 1 else torch.cat(flat, -1)

    def leaves(self, flat: Tensor) -> list[Tensor]:
        """The inverse of `flat`: views."""
        parts = flat.split(self.sizes, -1) if len(self.sizes) > 1 else (flat,)
        return [p.reshape((*p.shape[:-1], *s)) for p, s in zip(parts, self.shapes, strict=True)]  # s may be ()

    def tree(self, leaves: Sequence[Tensor]) -> Tree:
        return pytree.tree_unflatten(list(leaves), self.spec)


@dataclass(frozen=True, eq=False)
class Structure:
    """Which numbers of the state act on each other in one step: groups, none of which touches another.

    A step's Jacobian is then one block (k, k) for each of the G groups. k = 1: it is diagonal. k ≤ 4: blocks of
    diagonals, kept as (k, k, G). Above: dense within the groups, kept as (G, k, k).

    States are held in the order of the blocks, "in order" for short: (k, G) or (G, k) as one vector.

    Args:
        layout: of the state.
        groups: (k, G), the places in the state's vector of each group's numbers.
        whole: the structure of all of the Jacobian, where only a part of it is kept (quasi-Newton).
    """

    layout: Layout
    groups: Tensor
    whole: Structure | None = None

    @staticmethod
    def of(layout: Layout, labels: Tensor, whole: Structure | None = None) -> Structure:
        """From the group of each number; groups of unequal size are taken as one."""
        counts = torch.unique(labels, return_counts=True)[1]
        if len(counts.unique()) > 1:
            labels = torch.zeros_like(labels)
            counts = counts.sum().unsqueeze(0)
        order = torch.argsort(labels, stable=True)
        return Structure(layout, order.view(len(counts), -1).T.contiguous(), whole)

    @property
    def size(self) -> int:
        """k, the numbers of a group: as many tangents tell the whole Jacobian."""
        return self.groups.shape[0]

    @property
    def dense(self) -> bool:
        return self.size > MOST_STATES

    @property
    def kind(self) -> str:
        return "diagonal" if self.size == 1 else "dense" if self.dense else "block"

    def __str__(self) -> str:
        k, count = self.groups.shape
        text = {"diagonal": "diagonal", "block": f"{k}×{k} blocks of diagonals", "dense": f"{count} dense of {k}×{k}"}
        return text[self.kind] + ("" if self.whole is None else f" of {self.whole}")

    @cached_property
    def labels(self) -> Tensor:
        """(N,) the group of each number."""
        labels = torch.empty(self.layout.total, dtype=torch.long)
        labels[self.groups] = torch.arange(self.groups.shape[1]).expand_as(self.groups)
        return labels

    @cached_property
    def block_shape(self) -> tuple[int, ...]:
        """The shape of one step's Jacobian."""
        k, count = self.groups.shape
        return (count,) if k == 1 else (count, k, k) if self.dense else (k, k, count)

    @cached_property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of one state in order."""
        k, count = self.groups.shape
        return (count,) if k == 1 else (count, k) if self.dense else (k, count)

    @cached_property
    def order(self) -> Tensor | None:
        """(N,) the places of the state's numbers, in order; None where both orders are the same."""
        order = (self.groups.T if self.dense else self.groups).flatten()
        return None if torch.equal(order, torch.arange(len(order))) else order

    @cached_property
    def back(self) -> Tensor | None:
        return None if self.order is None else torch.argsort(self.order)

    @cached_property
    def owners(self) -> Tensor:
        """(N,) the tensor to which each number belongs, in order."""
        owners = self.layout.owners()
        return owners if self.order is None else owners[self.order]

    @cached_property
    def kept(self) -> Tensor:
        """\\*block_shape, the places of what is kept in the whole Jacobian's block as one vector."""
        assert self.whole is not None
        k, count = self.whole.groups.shape
        place = torch.arange(k * k * count).view(self.whole.block_shape)
        rows, columns = self.groups.unsqueeze(1), self.groups.unsqueeze(0)  # on [i, 1, g] acts [1, j, g]
        within = torch.empty(self.layout.total, dtype=torch.long)
        within[self.whole.groups] = torch.arange(k).unsqueeze(1).expand_as(self.whole.groups)
        group, i, j = torch.broadcast_tensors(self.whole.labels[rows], within[rows], within[columns])
        found = place[group, i, j] if self.whole.dense else place[i, j, group]
        return found[0, 0] if self.size == 1 else found.movedim(-1, 0) if self.dense else found

    def to_order(self, leaves: Sequence[Tensor], lead: int) -> Tensor:
        """The state's tensors with `lead` leading dimensions → (..., N) in order."""
        flat = self.layout.flat(leaves, lead)
        return flat if self.order is None else flat[..., self.order.to(flat.device)]

    def from_order(self, ordered: Tensor) -> list[Tensor]:
        """The inverse of `to_order`."""
        return self.layout.leaves(ordered if self.back is None else ordered[..., self.back.to(ordered.device)])

    @cached_property
    def colours(self) -> list[list[Tensor | None]]:
        """For each i < k, the weights of the i-th number of every group, tensor by tensor (None: all 0)."""
        found = []
        for members in self.groups:
            flat = torch.zeros(self.layout.total)
            flat[members] = 1
            found.append([x if x.any() else None for x in self.layout.leaves(flat)])
        return found
