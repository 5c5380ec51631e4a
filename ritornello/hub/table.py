"""The table of names of a checkpoint format: which of their tensors are which of ours, and how the numbers move.

A row is invertible, so that one table reads and writes, and it works on tensors without memory as well: their shapes
follow from ours, and a checkpoint is checked before a number of it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        older: a row of other names, or of other tensors, that some files have for theirs; it is read, never written.
        pooled: whether files may cut the first dimension of theirs elsewhere, as only all of them together count.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[[Tensors], Tensors] = tuple
    write: Callable[[Tensors], Tensors] = tuple
    copies: bool = True
    older: Row | None = None
    pooled: bool = False

    def at(self, i: int) -> Row:
        """The row of block i."""
        return self.named(lambda name: name.format(i=i), lambda name: name.format(i=i))

    def named(self, theirs: Callable[[str], str], ours: Callable[[str], str]) -> Row:
        """The row with other names."""
        older = None if self.older is None else self.older.named(theirs, ours)
        return replace(self, theirs=tuple(map(theirs, self.theirs)), ours=tuple(map(ours, self.ours)), older=older)

    def among(self, shapes: Mapping[str, tuple[int, ...]], ours: Tensors) -> Row:
        """The older row, where a file lacks some of these tensors and has its own, of the shapes that it makes of
        `ours`."""
        if self.older is None or all(name in shapes for name in self.theirs):
            return self
        made = [tuple(t.shape) for t in self.older.write(ours)]
        return self.older if made == [shapes.get(name) for name in self.older.theirs] else self


def same(theirs: str, ours: str | None = None, older: str | None = None) -> Row:
    """The tensor as it is, under another name or the same."""
    kept = (theirs if ours is None else ours,)
    return Row((theirs,), kept, copies=False, older=None if older is None else Row((older,), kept, copies=False))


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
    return [row.named(lambda name: theirs + name, lambda name: ours + name) for row in rows]
