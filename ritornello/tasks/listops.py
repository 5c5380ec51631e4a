"""ListOps: nested lists of digits with maximum, minimum, median and sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, lengths
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["ListOps"]

MAX, MIN, MED, SUM, CLOSE, EQUALS = range(10, 16)  # after the digits
OPERATORS = (MAX, MIN, MED, SUM)


@dataclass(frozen=True, kw_only=True)
class ListOps(Task):
    """[MAX 2 9 [MIN 4 7] 0] =: say the value, a digit; MED is the median rounded down, SUM is modulo ten.

    A list has two or more elements, each a list with probability max(`nest`, 1 − 4/r) while the greatest depth is not
    reached, where r is the room for it: a random part of what is left, so that an expression nearly fills its row.
    Nangia & Bowman 2018, arXiv:1804.06028; sizes of Long Range Arena, Tay et al. 2021, arXiv:2011.04006.

    Fields:
        depth: the greatest.
        arguments: the most in one list.
        nest: the least probability of a list where one has room.
        shortest_train: training draws the room of each row from it to `train_length`; only its ``=`` counts.
    """

    name: ClassVar[str] = "listops"
    about: ClassVar[About] = About(
        title="ListOps",
        paper="Nangia & Bowman 2018, arXiv:1804.06028",
        tests="Evaluating nested expressions: a stack of open lists, each with what has been found in it.",
    )
    small: ClassVar = MappingProxyType(
        {
            "depth": 4,
            "arguments": 4,
            "shortest_train": 8,
            "train_length": 32,
            "test_lengths": (32, 64, 128),
            "training": Training(steps=1500, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = MappingProxyType(
        {
            method: Figure(value, "length 500 to 2000", source)
            for method, value, source in (
                ("attention", 0.3637, "Tay et al. 2021, arXiv:2011.04006, table 1"),
                ("linear_attention", 0.1613, "Tay et al. 2021, arXiv:2011.04006, table 1"),
                ("s4", 0.5960, "Gu et al. 2022, arXiv:2111.00396, table 4 (revised)"),
            )
        }
    )

    depth: int = 10
    arguments: int = 10
    nest: float = 0.25
    shortest_train: int = 500
    train_length: int = 2000
    test_lengths: tuple[int, ...] = (2000, 3000, 4000)
    training: Training = Training(steps=5_000, batch=32, learning_rates=(5e-2, 1e-3), weight_decay=0.1)

    def __post_init__(self) -> None:
        check(self.depth >= 1, f"`depth` is {self.depth}; wanted 1 or more.")
        check(self.arguments >= 2, f"`arguments` is {self.arguments}; wanted 2 or more.")
        check(
            self.shortest <= self.shortest_train <= self.train_length,
            f"`shortest_train` is {self.shortest_train}; wanted {self.shortest} to {self.train_length}.",
        )

    @property
    def inputs(self) -> int:
        return EQUALS + 1

    @property
    def classes(self) -> int:
        return 10

    @property
    def shortest(self) -> int:
        return 5

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        sizes = lengths(batch, self.shortest_train, self.train_length, length, generator)
        random = torch.rand(batch, 6 * int(sizes.max()), generator=generator).tolist()
        drawn = [self._list(size - 1, 1, iter(row)) for size, row in zip(sizes[:, 0].tolist(), random, strict=True)]
        inputs = torch.tensor([tokens + [EQUALS] * (int(sizes.max()) - len(tokens)) for tokens, _ in drawn])
        ends = torch.tensor([[len(tokens)] for tokens, _ in drawn])
        mask = torch.arange(inputs.shape[1]) == ends
        return Batch(inputs, torch.tensor([[value] for _, value in drawn]).expand_as(inputs), mask)

    def _list(self, room: int, level: int, random: Iterator[float]) -> tuple[list[int], int]:
        """A list of at most `room` ≥ 4 tokens, and its value."""
        operator = OPERATORS[int(next(random) * 4)]
        tokens, values = [operator], []
        wanted = min(room - 2, 2 + int(next(random) * (self.arguments - 1)))
        for later in reversed(range(wanted)):
            left = room - 1 - len(tokens) - later  # each of the later ones needs a place
            share = left if not later else 1 + int((left - 1) * min(1.0, 2 * next(random) / (later + 1)))
            if share >= 4 and level < self.depth and next(random) < max(self.nest, 1 - 4 / share):
                inner, value = self._list(share, level + 1, random)
            else:
                value = int(next(random) * 10)
                inner = [value]
            tokens += inner
            values.append(value)
        return [*tokens, CLOSE], _apply(operator, values)

    def solve(self, inputs: Tensor) -> Tensor:
        values = [_value(row[: row.index(EQUALS)]) for row in inputs.tolist()]
        return torch.tensor(values).unsqueeze(1).expand_as(inputs)


def _apply(operator: int, values: list[int]) -> int:
    if operator == SUM:
        return sum(values) % 10
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
    return {MAX: ordered[-1], MIN: ordered[0], MED: middle}[operator]


def _value(tokens: list[int]) -> int:
    """By a stack of the open lists."""
    stack: list[list[int]] = [[]]
    for token in tokens:
        if token in OPERATORS:
            stack.append([token])
        elif token != CLOSE:
            stack[-1].append(token)
        elif len(stack) > 1:
            operator, *values = stack.pop()
            stack[-1].append(_apply(operator, values))
    return stack[0][-1]
