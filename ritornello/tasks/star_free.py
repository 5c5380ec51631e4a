"""A star-free language: the flip-flop."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["StarFree"]

WRITE, READ, IGNORE = 2, 3, 4  # after the bits


@dataclass(frozen=True, kw_only=True)
class StarFree(Task):
    """Instructions with a bit each, w 1 i 0 i 1 r …: at every r say the bit of the last w.

    The first instruction writes and the last reads; between them w and r have the probability (1 − p)/2, i has p. The
    bit after r is the answer. Flip-flop language modelling, Liu et al. 2023, arXiv:2306.00946; their sparse test has
    p = 0.98.

    Fields:
        ignore: p of training.
        sparse: p of the test.
    """

    name: ClassVar[str] = "star_free"
    about: ClassVar[About] = About(
        title="Star-free: the flip-flop",
        paper="Liu et al. 2023, arXiv:2306.00946",
        tests="Keeping the last bit that was written over any number of distractions; needs no counting.",
    )
    small: ClassVar = MappingProxyType(
        {
            "train_length": 64,
            "test_lengths": (64, 128, 256),
            "sparse": 0.9,
            "training": Training(steps=500, batch=64, learning_rates=(1e-2, 3e-3)),
        }
    )

    ignore: float = 0.8
    sparse: float = 0.98
    train_length: int = 512
    test_lengths: tuple[int, ...] = (512, 1024, 2048)
    training: Training = Training(steps=10_000, batch=16, learning_rates=(3e-4,))

    def __post_init__(self) -> None:
        for name in ("ignore", "sparse"):
            check(0 <= getattr(self, name) < 1, f"`{name}` is {getattr(self, name)}; wanted a probability below 1.")

    @property
    def inputs(self) -> int:
        return 5

    @property
    def classes(self) -> int:
        return 2

    @property
    def shortest(self) -> int:
        return 3

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        count = length // 2 + 1
        bits = integers(0, 2, (batch, count), generator)
        kinds = integers(WRITE, READ + 1, (batch, count), generator)
        ignored = torch.rand(batch, count, generator=generator) < (self.sparse if split == "test" else self.ignore)
        kinds = torch.where(ignored, IGNORE, kinds)
        kinds[:, 0] = WRITE
        kinds[:, (length - 1) // 2] = READ
        tokens = torch.stack((kinds, bits), -1).flatten(1)
        answers = self.solve(tokens)
        asked = tokens == READ
        tokens[:, 1:] = torch.where(asked[:, :-1], answers[:, :-1], tokens[:, 1:])
        return Batch(tokens[:, :length], answers[:, :length], asked[:, :length])

    def solve(self, inputs: Tensor) -> Tensor:
        steps = torch.arange(inputs.shape[1]).expand_as(inputs)
        last = torch.where(inputs == WRITE, steps, 0).cummax(1).values
        return inputs.gather(1, (last + 1).clamp(max=inputs.shape[1] - 1))
