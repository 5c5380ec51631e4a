"""Brackets: Dyck-n with a stack, and shuffled brackets with counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Training
from ritornello.tasks.formal import Formal, small
from ritornello.typing import Tensor

__all__ = ["Counters", "Dyck"]


@dataclass(frozen=True, kw_only=True)
class Dyck(Formal):
    """Prefixes of well-nested brackets of several kinds; y_t is the bracket that may close next, 0 where none is open.

    A step opens or closes with probability one half, and opens where nothing is open, closes at the greatest depth;
    kinds are uniform. Tokens: ``kinds`` opening, then as many closing ones. Hewitt et al. 2020, arXiv:2010.07515.

    Fields:
        kinds: n of Dyck-n.
        depth: the greatest.
    """

    name: ClassVar[str] = "dyck"
    about: ClassVar[About] = About(
        title="Dyck-n of bounded depth",
        paper="Hewitt et al. 2020, arXiv:2010.07515",
        tests="A stack of bounded depth: which bracket is the last that is open?",
    )
    small: ClassVar = small(800, kinds=2, depth=4)

    kinds: int = 8
    depth: int = 8
    dense: bool = True
    training: Training = Training(steps=100_000, batch=256, learning_rates=(1e-3, 5e-4, 1e-4))

    def __post_init__(self) -> None:
        super().__post_init__()
        check(min(self.kinds, self.depth) >= 1, f"`kinds` is {self.kinds}, `depth` {self.depth}; wanted 1 or more.")

    @property
    def inputs(self) -> int:
        return 2 * self.kinds

    @property
    def classes(self) -> int:
        return self.kinds + 1

    def _strings(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        rows, length = len(sizes), int(sizes.max())
        kind = integers(0, self.kinds, (length, rows), generator)
        closes = integers(0, 2, (length, rows), generator).bool()
        stack = torch.zeros(rows, self.depth + 1, dtype=torch.long)
        level = torch.zeros(rows, dtype=torch.long)
        tokens = []
        for t in range(length):
            close = (closes[t] & (level > 0)) | (level == self.depth)
            top = stack.gather(1, level.unsqueeze(1)).squeeze(1)
            tokens.append(torch.where(close, self.kinds + top, kind[t]))
            level = level + torch.where(close, -1, 1)
            kept = torch.where(close, stack.gather(1, level.unsqueeze(1)).squeeze(1), kind[t])
            stack = stack.scatter(1, level.unsqueeze(1), kept.unsqueeze(1))
        return torch.stack(tokens, 1)

    def solve(self, inputs: Tensor) -> Tensor:
        """Of level n the last bracket that opened into it: with as many open before, nothing since closed it."""
        opens = inputs < self.kinds
        level = torch.where(opens, 1, -1).cumsum(1)
        steps = torch.arange(inputs.shape[1]).expand_as(inputs)
        answers = torch.zeros_like(inputs)
        for n in range(1, self.depth + 1):
            last = torch.where(opens & (level == n), steps, -1).cummax(1).values
            answers = torch.where(level == n, 1 + inputs.gather(1, last.clamp(min=0)), answers)
        return answers.clamp(max=self.kinds)


@dataclass(frozen=True, kw_only=True)
class Counters(Formal):
    """Two kinds of brackets that need not nest; y_t = [one of the first is open] + 2·[one of the second is open].

    Every step is uniform over what is possible: to open either, to close what is open. Tokens: two opening, two
    closing. The shuffle of Dyck-1 languages, Suzgun et al. 2019, arXiv:1906.03648; Bhattamishra et al. 2020,
    arXiv:2009.11264.
    """

    name: ClassVar[str] = "counters"
    about: ClassVar[About] = About(
        title="Counters: shuffled brackets",
        paper="Suzgun et al. 2019, arXiv:1906.03648",
        tests="Counting up and down without bound, twice at once, and noticing zero.",
    )
    small: ClassVar = small(800)
    symbols: ClassVar[int] = 4
    labels: ClassVar[int] = 4

    dense: bool = True

    def _strings(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        rows, length = len(sizes), int(sizes.max())
        chosen = torch.rand(length, rows, generator=generator)
        counts = torch.zeros(rows, 2, dtype=torch.long)
        tokens = []
        for t in range(length):
            closable = counts > 0
            move = (chosen[t] * (2 + closable.sum(1))).long()  # open 0, open 1, close the first closable, …
            move = torch.where((move == 2) & ~closable[:, 0], 3, move)
            tokens.append(move)
            counts.scatter_add_(1, (move % 2).unsqueeze(1), torch.where(move < 2, 1, -1).unsqueeze(1))
        return torch.stack(tokens, 1)

    def solve(self, inputs: Tensor) -> Tensor:
        first, second = (((inputs == kind).long() - (inputs == kind + 2).long()).cumsum(1) > 0 for kind in (0, 1))
        return first + 2 * second.long()
