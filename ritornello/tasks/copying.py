"""Copying: say again what was read, after a delay, out of a sea of blanks, or backwards."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, choose, integers
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.tasks.formal import DELETANG, deletang
from ritornello.typing import Tensor

__all__ = ["Copying", "Recital", "Replay", "ReverseString", "SelectiveCopying"]


@dataclass(frozen=True, kw_only=True)
class Recital(Task):
    """x₁ … xₙ among blanks, a mark, then n blanks at which to say x₁ … xₙ in order.

    Tokens: the `symbols` 0, 1, …, then the blank, then the mark.

    Fields:
        symbols: how many different ones there are.
        count: n.
        shortest_train: where given, the length of each training batch is uniform from it to `train_length`.
    """

    scattered: ClassVar[bool]  # whether the symbols stand anywhere before the mark, or at the beginning

    symbols: int = 16
    count: int = 16
    shortest_train: int | None = None

    def __post_init__(self) -> None:
        least = min(self.train_length, self.shortest_train or self.train_length)
        check(least >= self.shortest, f"{self.count} symbols take {self.shortest} steps; training has {least}.")

    @property
    def inputs(self) -> int:
        return self.symbols + 2

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def shortest(self) -> int:
        return 2 * self.count + 1

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        if length is None:
            least = self.shortest_train or self.train_length
            length = int(integers(least, self.train_length + 1, (1,), generator))
        content = integers(0, self.symbols, (batch, self.count), generator)
        before = length - self.count - 1
        if self.scattered:
            places = choose(torch.ones(batch, before), self.count, generator).sort(1).values
        else:
            places = torch.arange(self.count).expand(batch, -1)
        inputs = torch.full((batch, length), self.symbols).scatter(1, places, content)
        inputs[:, before] = self.symbols + 1
        mask = torch.zeros_like(inputs, dtype=torch.bool)
        mask[:, before + 1 :] = True
        targets = torch.zeros_like(inputs)
        targets[:, before + 1 :] = content
        return Batch(inputs, targets, mask)

    def solve(self, inputs: Tensor) -> Tensor:
        order = (inputs >= self.symbols).int().argsort(dim=1, stable=True)  # the symbols first, as they came
        since = torch.arange(inputs.shape[1]) - (inputs == self.symbols + 1).int().argmax(1, keepdim=True) - 1
        return inputs.gather(1, order.gather(1, since.clamp(0, self.count - 1)))


@dataclass(frozen=True, kw_only=True)
class Copying(Recital):
    """Ten symbols, a delay of blanks, the mark, and the ten again. Arjovsky et al. 2016, arXiv:1511.06464, section 4.1.

    The length is that of the whole: twenty more than their T. Only the recital counts.
    """

    name: ClassVar[str] = "copying"
    about: ClassVar[About] = About(
        title="Copying after a delay",
        paper="Hochreiter & Schmidhuber 1997; sizes of Arjovsky et al. 2016, arXiv:1511.06464",
        tests="Holding a string over many steps in which nothing happens.",
    )
    small: ClassVar = MappingProxyType(
        {
            "count": 5,
            "shortest_train": 11,
            "train_length": 40,
            "test_lengths": (40, 80, 160),
            "training": Training(steps=800, batch=64, learning_rates=(1e-2, 3e-3)),
        }
    )
    scattered: ClassVar[bool] = False

    symbols: int = 8
    count: int = 10
    train_length: int = 120
    test_lengths: tuple[int, ...] = (120, 220, 320, 520)
    training: Training = Training(steps=10_000, batch=128, learning_rates=(1e-3,))


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying(Recital):
    """Sixteen symbols anywhere among blanks, the mark, and the sixteen in order. Gu & Dao 2023, arXiv:2312.00752,
    section 4.1.1; one mark stands for their sixteen.
    """

    name: ClassVar[str] = "selective_copying"
    about: ClassVar[About] = About(
        title="Selective copying",
        paper="Gu & Dao 2023, arXiv:2312.00752",
        tests="Keeping some inputs and ignoring others by their content: gates or keys that depend on the input.",
    )
    small: ClassVar = MappingProxyType(
        {
            "symbols": 4,
            "count": 4,
            "train_length": 32,
            "test_lengths": (32, 64, 128),
            "training": Training(steps=1000, batch=64, learning_rates=(1e-2, 3e-3)),
        }
    )
    published: ClassVar = MappingProxyType(
        {
            method: Figure(value, "2 layers, d = 64, length 4096", "Gu & Dao 2023, arXiv:2312.00752, table 1")
            for method, value in {
                "s4": 0.183,
                "s6": 0.970,
                "h3": 0.570,
                "hyena": 0.301,
                "h3 with s6": 0.997,
                "mamba with s4": 0.564,
                "mamba with hyena": 0.284,
                "mamba": 0.998,
            }.items()
        }
    )
    scattered: ClassVar[bool] = True

    train_length: int = 4096 + 17
    test_lengths: tuple[int, ...] = (4096 + 17, 8192 + 17)
    training: Training = Training(steps=400_000, batch=64, learning_rates=(1e-4,))


@dataclass(frozen=True, kw_only=True)
class Replay(Task):
    """x₁ … xₙ, a mark, then n blanks at which to say all of it, forwards or backwards; n is half of the length.

    Tokens: the `symbols` 0, 1, …, then the blank, then the mark.

    Fields:
        symbols: how many different ones there are.
        shortest_train: where given, the length of each training batch is uniform from it to `train_length`.
    """

    backwards: ClassVar[bool]

    symbols: int
    shortest_train: int | None = None

    @property
    def inputs(self) -> int:
        return self.symbols + 2

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def shortest(self) -> int:
        return 3

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        if length is None:
            least = self.shortest_train or self.train_length
            length = int(integers(least, self.train_length + 1, (1,), generator))
        count = (length - 1) // 2
        inputs = torch.full((batch, length), self.symbols)
        inputs[:, :count] = integers(0, self.symbols, (batch, count), generator)
        inputs[:, count] = self.symbols + 1
        mask = torch.zeros_like(inputs, dtype=torch.bool)
        mask[:, count + 1 : 2 * count + 1] = True
        return Batch(inputs, self.solve(inputs), mask)

    def solve(self, inputs: Tensor) -> Tensor:
        mark = (inputs == self.symbols + 1).int().argmax(1, keepdim=True)
        since = torch.arange(inputs.shape[1]) - mark - 1
        place = mark - 1 - since if self.backwards else since
        return inputs.gather(1, place.clamp(0, inputs.shape[1] - 1)).clamp(max=self.symbols - 1)


@dataclass(frozen=True, kw_only=True)
class ReverseString(Replay):
    """A string of bits up to 40 long, backwards; tested up to 250."""

    name: ClassVar[str] = "reverse_string"
    about: ClassVar[About] = About(
        title="Reverse string",
        paper=DELETANG,
        tests="A stack: the first that was read is the last to be said.",
    )
    small: ClassVar = MappingProxyType(
        {
            "shortest_train": 5,
            "train_length": 41,
            "test_lengths": (41, 81, 161),
            "training": Training(steps=1000, batch=64, learning_rates=(1e-2, 3e-3)),
        }
    )
    published: ClassVar = MappingProxyType(deletang(62.0, 100, 100, 62.3, 60.9))
    backwards: ClassVar[bool] = True

    symbols: int = 2
    shortest_train: int | None = 3
    train_length: int = 81
    test_lengths: tuple[int, ...] = (81, 161, 321, 501)
    training: Training = Training(steps=1_000_000, batch=128, learning_rates=(1e-4, 3e-4, 5e-4))
