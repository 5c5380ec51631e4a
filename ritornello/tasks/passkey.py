"""Passkey: a needle in a haystack."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["Passkey"]


@dataclass(frozen=True, kw_only=True)
class Passkey(Task):
    """Filler, a mark with a number of several digits somewhere in it, filler, and the mark again: say the number.

    The filler is one sentence, the same in every row, over and over; tokens are ten digits, the mark and the
    sentence's. The digits said so far are given. Mohtashami & Jaggi 2023, arXiv:2305.16300; the single needle in
    repeated text of RULER, Hsieh et al. 2024, arXiv:2404.06654.

    Fields:
        digits: of the number.
        sentence: the length of the sentence.
    """

    name: ClassVar[str] = "passkey"
    about: ClassVar[About] = About(
        title="Passkey, or the needle in a haystack",
        paper="Mohtashami & Jaggi 2023, arXiv:2305.16300",
        tests="Keeping a little through a text without content, far beyond the lengths of training: where states "
        "overflow or collapse, it shows.",
    )
    small: ClassVar = MappingProxyType(
        {
            "digits": 3,
            "sentence": 8,
            "train_length": 64,
            "test_lengths": (64, 256, 1024),
            "training": Training(steps=800, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )

    digits: int = 5
    sentence: int = 32
    train_length: int = 1024
    test_lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    training: Training = Training(steps=20_000, batch=32, learning_rates=(1e-3, 3e-4))

    def __post_init__(self) -> None:
        check(self.digits >= 1, f"`digits` is {self.digits}; wanted 1 or more.")
        check(self.train_length >= self.shortest, f"`train_length` is {self.train_length}; wanted {self.shortest}.")

    @property
    def inputs(self) -> int:
        return 11 + self.sentence

    @property
    def classes(self) -> int:
        return 10

    @property
    def shortest(self) -> int:
        return 2 * (self.digits + 1)

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        size = self.digits + 1
        needle = integers(0, 10, (batch, size), generator)
        needle[:, 0] = 10
        inputs = 11 + (torch.arange(length) % self.sentence).repeat(batch, 1)
        place = integers(0, length - 2 * size + 2, (batch, 1), generator)
        inputs.scatter_(1, place + torch.arange(size), needle)
        inputs[:, length - self.digits :] = needle[:, :-1]
        targets = torch.zeros_like(inputs)
        targets[:, length - self.digits :] = needle[:, 1:]
        mask = torch.zeros_like(inputs, dtype=torch.bool)
        mask[:, length - self.digits :] = True
        return Batch(inputs, targets, mask)

    def solve(self, inputs: Tensor) -> Tensor:
        steps = torch.arange(inputs.shape[1])
        marks = inputs == 10
        first = marks.int().argmax(1, keepdim=True)
        last = torch.where(marks, steps, -1).amax(1, keepdim=True)
        return inputs.gather(1, (first + 1 + steps - last).clamp(0, inputs.shape[1] - 1)).clamp(max=9)
