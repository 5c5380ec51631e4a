"""Multi-query associative recall."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import torch

from ritornello.tasks._draw import check, choose, doubled, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.tasks.formal import pararnn
from ritornello.typing import Tensor

__all__ = ["MQAR"]


@dataclass(frozen=True, kw_only=True)
class MQAR(Task):
    """k₁ v₁ k₂ v₂ … kₙ vₙ, then every key once again among random tokens: after kᵢ say vᵢ.

    Keys come from the lower half of the vocabulary and values from the upper, both without repetition. A key is asked
    for 2r steps after the pairs, r drawn without replacement with probability ∝ a·(r + 1)^{a − 1}; all other steps are
    uniform over the vocabulary. Arora et al. 2023, arXiv:2312.04927, and their code, HazyResearch/zoology.

    Fields:
        vocabulary: its size, even.
        mixture: (m, spacing, weight) of the training batches: ``train_length // m`` steps, and a pair for every
            `spacing` of them, as far as there are keys. A batch is of one kind.
        spacing: that of the test.
        power: a.
        noise: steps that are neither pair nor query are random tokens; otherwise they are 0, which is no key.
        doublings: how often `train_length` is doubled in the first half of training, to arrive at its value.
    """

    name: ClassVar[str] = "mqar"
    about: ClassVar[About] = About(
        title="Multi-query associative recall",
        paper="Arora et al. 2023, arXiv:2312.04927",
        tests="Looking up many values by their keys: how much a state can hold, and whether it can be addressed.",
    )
    small: ClassVar = MappingProxyType(
        {
            "vocabulary": 32,
            "train_length": 64,
            "mixture": ((1, 8, 1),),
            "test_lengths": (64, 128, 256),
            "spacing": 8,
            "noise": False,
            "doublings": 2,
            "training": Training(steps=800, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = MappingProxyType(
        pararnn("128 tokens, κ = 2", attention=1.0, mamba2=1.0, para_gru=1.0, para_lstm=1.0)
    )

    vocabulary: int = 8192
    train_length: int = 256
    test_lengths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    mixture: tuple[tuple[int, int, float], ...] = ((4, 16, 5), (2, 16, 1), (1, 16, 1), (1, 8, 1), (1, 4, 1))
    spacing: int = 4
    power: float = 0.01
    noise: bool = True
    doublings: int = 0
    training: Training = Training(steps=90_000, batch=64, learning_rates=(1e-4, 4.6e-4, 2.2e-3, 1e-2))

    def __post_init__(self) -> None:
        even = self.vocabulary % 2 == 0 and self.vocabulary >= 4
        check(even, f"`vocabulary` is {self.vocabulary}; wanted an even number from 4 on.")
        for spacing in (self.spacing, *(spacing for _, spacing, _ in self.mixture)):
            check(spacing >= 4, f"`spacing` is {spacing}; a pair and its query need 4 steps.")
        for part, spacing, _ in self.mixture:
            least = (self.train_length >> self.doublings) // part
            check(least >= spacing, f"Training has batches of {least} steps; a pair for every {spacing} needs as many.")

    def _pairs(self, length: int, spacing: int) -> int:
        return min(length // spacing, self.vocabulary // 2 - 1)  # no more than there are keys

    @property
    def inputs(self) -> int:
        return self.vocabulary

    @property
    def classes(self) -> int:
        return self.vocabulary

    @property
    def answers(self) -> range:
        return range(self.vocabulary // 2, self.vocabulary)

    @property
    def shortest(self) -> int:
        return self.spacing

    def stage(self, progress: float) -> Self:
        return doubled(self, progress, self.doublings)

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        if length is None:
            weights = torch.tensor([[float(weight) for _, _, weight in self.mixture]])
            part, spacing, _ = self.mixture[int(choose(weights, 1, generator))]
            length, pairs = self.train_length // part, self._pairs(self.train_length // part, spacing)
        else:
            pairs = self._pairs(length, self.spacing)
        half = self.vocabulary // 2
        keys = 1 + choose(torch.ones(batch, half - 1), pairs, generator)
        values = half + choose(torch.ones(batch, half), pairs, generator)
        places = torch.arange(1, (length - 2 * pairs) // 2 + 1)
        gaps = choose((places ** (self.power - 1)).expand(batch, -1), pairs, generator)

        inputs = integers(0, self.vocabulary if self.noise else 1, (batch, length), generator)
        inputs[:, : 2 * pairs] = torch.stack((keys, values), -1).flatten(1)
        asked = 2 * pairs + 2 * gaps
        inputs.scatter_(1, asked, keys)
        targets = torch.zeros_like(inputs).scatter_(1, asked, values)
        return Batch(inputs, targets, torch.zeros_like(inputs, dtype=torch.bool).scatter_(1, asked, True))

    def solve(self, inputs: Tensor) -> Tensor:
        rows, length = inputs.shape
        steps = torch.arange(length).expand(rows, -1)
        first = torch.full((rows, self.vocabulary), length).scatter_reduce(1, inputs, steps, "amin")
        return inputs.gather(1, (first.gather(1, inputs) + 1).clamp(max=length - 1))
