"""k-hop induction heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Self

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.tasks.formal import pararnn
from ritornello.typing import Tensor

__all__ = ["KHop"]


@dataclass(frozen=True, kw_only=True)
class KHop(Task):
    """From x_t go to what followed the last earlier x_t, and again from there, k times; say the token one arrives at.

    find(i) = max{j ≤ i : x_{j−1} = x_i}; y_t = x at find(find(… find(t))), wherever that exists. Sanford et al. 2024,
    arXiv:2402.09268. x is uniform but never twice the same in a row, for from x_{t−1} = x_t no hop leads away; it
    begins a b a b …, so that every row has an answer. In training k grows from 1 to its value over the first half.

    Fields:
        hops: k.
        alphabet: how many tokens.
    """

    name: ClassVar[str] = "k_hop"
    about: ClassVar[About] = About(
        title="k-hop induction heads",
        paper="Sanford et al. 2024, arXiv:2402.09268",
        tests="Looking up what was looked up: recall in several steps, over one reading.",
    )
    small: ClassVar = MappingProxyType(
        {
            "hops": 2,
            "alphabet": 8,
            "train_length": 64,
            "test_lengths": (64, 128, 256),
            "training": Training(steps=1500, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = MappingProxyType(
        pararnn("two hops over 5 tokens", attention=0.78, mamba2=0.98, para_gru=1.0, para_lstm=1.0)
    )

    prefixes: ClassVar[bool] = True

    hops: int = 4
    alphabet: int = 4
    train_length: int = 100
    test_lengths: tuple[int, ...] = (100, 200, 400)
    training: Training = Training(steps=100_000, batch=128, learning_rates=(1e-3, 3e-4, 1e-4))

    def __post_init__(self) -> None:
        check(self.hops >= 1, f"`hops` is {self.hops}; wanted 1 or more.")
        check(self.alphabet >= 2, f"`alphabet` is {self.alphabet}; wanted 2 or more.")

    @property
    def inputs(self) -> int:
        return self.alphabet

    @property
    def classes(self) -> int:
        return self.alphabet

    @property
    def shortest(self) -> int:
        return self.hops + 2

    def stage(self, progress: float) -> Self:
        return replace(self, hops=min(self.hops, 1 + int(2 * progress * self.hops)))

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        turns = integers(1, self.alphabet, (batch, length or self.train_length), generator)
        inputs = turns.cumsum(1) % self.alphabet
        begin = inputs[:, : self.hops + 2]
        begin[:, 2::2], begin[:, 3::2] = begin[:, :1].clone(), begin[:, 1:2].clone()
        inputs = torch.cat((begin, (begin[:, -1:] + turns[:, self.hops + 2 :].cumsum(1)) % self.alphabet), 1)
        places = self._places(inputs)
        return Batch(inputs, inputs.gather(1, places.clamp(min=0)), places >= 0)

    def _places(self, inputs: Tensor) -> Tensor:
        """(B, T) where the hops from each step end; −1 where they do not."""
        steps = torch.arange(1, inputs.shape[1]).expand(len(inputs), -1)
        found = torch.full_like(inputs, -1)
        for token in range(self.alphabet):
            last = torch.where(inputs[:, :-1] == token, steps, -1).cummax(1).values
            found[:, 1:] = torch.where(inputs[:, 1:] == token, last, found[:, 1:])
        places = torch.arange(inputs.shape[1]).expand_as(inputs)
        for _ in range(self.hops):
            places = torch.where(places >= 0, found.gather(1, places.clamp(min=0)), -1)
        return places

    def solve(self, inputs: Tensor) -> Tensor:
        return inputs.gather(1, self._places(inputs).clamp(min=0))
