"""Set disjointness: which token is in both of two sets, read once or twice."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, choose, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["SetDisjointness"]


@dataclass(frozen=True, kw_only=True)
class SetDisjointness(Task):
    """a₁ … aₘ | b₁ … bₙ ?: at the last ? say the one token that is in both sets; read twice, all of it comes again.

    Tokens of a set differ. With the large set first, a causal reader must keep all of it, or know the small one from a
    first reading; with the small set first it need not. Arora et al. 2024, arXiv:2407.05483, section 3, and their
    code, HazyResearch/prefix-linear-attention. A longer row has a larger set.

    Fields:
        symbols: how many different tokens.
        smaller: n; m is what is left of a reading.
        smaller_first: the other order of the sets.
        readings: how often both sets and the mark are read, on end.
    """

    name: ClassVar[str] = "set_disjointness"
    about: ClassVar[About] = About(
        title="Set disjointness",
        paper="Arora et al. 2024, arXiv:2407.05483",
        tests="What a state must hold when the question comes after the text, and what a second reading is worth.",
    )
    small: ClassVar = MappingProxyType(
        {
            "symbols": 32,
            "train_length": 16,
            "test_lengths": (16, 24, 32),
            "training": Training(steps=1000, batch=64, learning_rates=(1e-2, 3e-3)),
        }
    )

    symbols: int = 2048
    smaller: int = 4
    smaller_first: bool = False
    readings: int = 1
    train_length: int = 262
    test_lengths: tuple[int, ...] = (262, 518, 774)
    training: Training = Training(steps=60_000, batch=128, learning_rates=(1e-4, 5e-4, 8e-4))

    def __post_init__(self) -> None:
        check(min(self.smaller, self.readings) >= 1, "`smaller` and `readings` must be 1 or more.")
        self._larger(self.train_length)

    def _larger(self, length: int) -> int:
        """m in rows of that length."""
        check(length % self.readings == 0, f"`length` is {length}; {self.readings} readings need a multiple of it.")
        larger = length // self.readings - self.smaller - 2
        most = self.symbols - self.smaller + 1
        check(1 <= larger <= most, f"`length` is {length}: a set of {larger}; wanted 1 to {most}, with the `symbols`.")
        return larger

    @property
    def inputs(self) -> int:
        return self.symbols + 2

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def shortest(self) -> int:
        return self.readings * (self.smaller + 3)

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        larger = self._larger(length := length or self.train_length)
        tokens = choose(torch.ones(batch, self.symbols), larger + self.smaller - 1, generator)
        a, b = tokens[:, :larger], tokens[:, larger:]
        shared = a.gather(1, integers(0, larger, (batch, 1), generator))
        b = torch.cat((b, shared), 1)
        b = b.gather(1, torch.rand(b.shape, generator=generator).argsort(1))
        first, second = (b, a) if self.smaller_first else (a, b)
        then, ask = (torch.full_like(shared, self.symbols + mark) for mark in (0, 1))
        inputs = torch.cat((first, then, second, ask), 1).repeat(1, self.readings)
        mask = (torch.arange(length) == length - 1).repeat(batch, 1)
        return Batch(inputs, shared.expand_as(inputs), mask)

    def solve(self, inputs: Tensor) -> Tensor:
        once = (inputs == self.symbols + 1).cumsum(1) == 0
        after = (inputs == self.symbols).cumsum(1) > 0
        seen = [
            torch.zeros(len(inputs), self.inputs).scatter_add(1, inputs, (once & part).float())
            for part in (~after, after)
        ]
        both = (seen[0] * seen[1])[:, : self.symbols]
        return both.argmax(1, keepdim=True).expand_as(inputs)
