"""The table of names of a checkpoint format: which of their tensors are which of ours, and how the numbers move.

A row is invertible, so that one table reads and writes, and it works on tensors without memory as well: their shapes
follow from ours, and a checkpoint is checked before a number of it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from ritornello.typing import Tensor

__all__ = ["Row", "joined", "permuted", "same", "shifted", "squeezed", "under"]

Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class Row:
    """Some of their tensors and the ones of ours that hold the same numbers.

    Args:
        theirs, ours: names, with ``{i}`` for the number of a block.
        read: their tensors → ours.
        write: ours → theirs.
        copies: whether `read` makes new tensors; a row that does not hands on what is mapped from the file.
        older: other names that some files have for theirs; they are read, and never written.
        pooled: whether files may cut the first dimension of theirs elsewhere, as only all of them together count.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[[Tensors], Tensors] = tuple
    write: Callable[[Tensors], Tensors] = tuple
    copies: bool = True
    older: tuple[str, ...] = ()
    pooled: bool = False

    def at(self, i: int) -> Row:
        """The row of block i."""
        names = (self.theirs, self.ours, self.older)
        theirs, ours, older = (tuple(name.format(i=i) for name in found) for found in names)
        return replace(self, theirs=theirs, ours=ours, older=older)

    def among(self, names: Container[str]) -> Row:
        """The row by its older names, where a file has those instead."""
        instead = self.older and all(n in names for n in self.older) and not any(n in names for n in self.theirs)
        return replace(self, theirs=self.older) if instead else self


def same(theirs: str, ours: str | None = None, older: str | None = None) -> Row:
    """The tensor as it is, under another name or the same."""
    return Row((theirs,), (theirs if ours is None else ours,), copies=False, older=() if older is None else (older,))


def squeezed(theirs: str, ours: str, dim: int = 1) -> Row:
    """Their tensor has a dimension of size 1 that ours lacks: the weight (D, 1, W) of a depthwise nn.Conv1d."""
    return Row((theirs,), (ours,), lambda t: (t[0].squeeze(dim),), lambda t: (t[0].unsqueeze(dim),), copies=False)


def joined(theirs: Iterable[str], ours: str, sizes: Sequence[int] | None = None) -> Row:
    """Their tensors stand one after the other in ours, along the first dimension; of equal size where no `sizes`."""
    names = tuple(theirs)

    def write(tensors: Tensors) -> Tensors:
        return tensors[0].chunk(len(names)) if sizes is None else tensors[0].split(list(sizes))

    return Row(names, (ours,), lambda t: (torch.cat(list(t)),), write)


def shifted(theirs: str, ours: str, by: float = 1.0) -> Row:
    """Ours is theirs + `by`."""
    return Row((theirs,), (ours,), lambda t: (t[0] + by,), lambda t: (t[0] - by,))


def permuted(theirs: str, ours: str, order: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]) -> Row:
    """The same numbers in another order or shape: ``ours = order(theirs)``, ``theirs = inverse(ours)``."""
    return Row((theirs,), (ours,), lambda t: (order(t[0]).contiguous(),), lambda t: (inverse(t[0]),))


def under(theirs: str, ours: str, rows: Iterable[Row]) -> list[Row]:
    """The rows with a prefix before each name of theirs and of ours."""

    def longer(prefix: str, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(prefix + name for name in names)

    return [
        replace(row, theirs=longer(theirs, row.theirs), ours=longer(ours, row.ours), older=longer(theirs, row.older))
        for row in rows
    ]
