"""The other tasks of MAD: selective copying, memorisation, compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.tasks.copying import Recital, Replay
from ritornello.tasks.mad_recall import MAD, MAD_TRAINING, mad_figures
from ritornello.typing import Tensor

__all__ = ["Compression", "MADSelectiveCopying", "Memorization"]


@dataclass(frozen=True, kw_only=True)
class MADSelectiveCopying(Recital):
    """Sixteen of fourteen symbols anywhere among blanks, the mark, and the sixteen in order; 256 steps in all."""

    name: ClassVar[str] = "mad_selective_copying"
    about: ClassVar[About] = About(
        title="MAD: selective copying",
        paper=MAD,
        tests="Keeping some inputs in their order and ignoring the others.",
    )
    small: ClassVar = MappingProxyType(
        {
            "count": 8,
            "train_length": 64,
            "test_lengths": (64, 128, 256),
            "training": Training(steps=1000, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = mad_figures(0.998, 0.870, 0.949, 0.887, 0.999, 0.997, 0.997, 0.891)
    scattered: ClassVar[bool] = True

    symbols: int = 14
    train_length: int = 256
    test_lengths: tuple[int, ...] = (256, 512, 1024)
    training: Training = MAD_TRAINING


@cache
def _facts(keys: int) -> Tensor:
    """(keys,) a value for every key, the same in every process."""
    return torch.randperm(keys + 1, generator=torch.Generator().manual_seed(12345))[:keys]


@dataclass(frozen=True, kw_only=True)
class Memorization(Task):
    """k □ k □ …: at □ say the value of the key before it. Which value a key has never changes, and is in no context.

    Fields:
        vocabulary: keys are its lower half, values its upper, □ its last.
    """

    name: ClassVar[str] = "mad_memorization"
    about: ClassVar[About] = About(
        title="MAD: memorisation",
        paper=MAD,
        tests="Holding facts in the weights: what the channel mixers of a model are for.",
    )
    small: ClassVar = MappingProxyType(
        {
            "test_lengths": (32, 64, 128),
            "training": Training(steps=400, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = mad_figures(0.788, 0.896, 0.886, 0.896, 0.648, 0.552, 0.394, 0.771)
    prefixes: ClassVar[bool] = True

    vocabulary: int = 256
    train_length: int = 32
    test_lengths: tuple[int, ...] = (32, 64, 128)
    training: Training = Training(steps=400, batch=128, learning_rates=(1e-4, 5e-4, 1e-3), weight_decay=0.1)

    @property
    def keys(self) -> int:
        return (self.vocabulary - 1) // 2

    @property
    def inputs(self) -> int:
        return self.vocabulary

    @property
    def classes(self) -> int:
        return self.vocabulary

    @property
    def answers(self) -> range:
        return range(self.keys, self.vocabulary - 1)

    @property
    def shortest(self) -> int:
        return 2

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        inputs = integers(0, self.keys, (batch, length), generator)
        inputs[:, 1::2] = self.vocabulary - 1
        return Batch(inputs, self.solve(inputs), inputs == self.vocabulary - 1)

    def solve(self, inputs: Tensor) -> Tensor:
        before = torch.cat((inputs[:, :1], inputs[:, :-1]), 1).clamp(max=self.keys - 1)
        return self.keys + _facts(self.keys)[before]


@dataclass(frozen=True, kw_only=True)
class Compression(Replay):
    """x₁ … xₙ, a mark, then n blanks at which to say x₁ … xₙ in order: nothing is left out, nothing is repeated.

    MAD decodes what the model says at the mark, with a position added, by an MLP of its own; here the model goes on for
    n steps of blanks instead, so that every layer is asked in the same way.
    """

    name: ClassVar[str] = "mad_compression"
    about: ClassVar[About] = About(
        title="MAD: compression",
        paper=MAD,
        tests="Packing a whole random string into the state: how much a state holds.",
    )
    small: ClassVar = MappingProxyType(
        {
            "train_length": 33,
            "test_lengths": (33, 49, 65),
            "training": Training(steps=1000, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = mad_figures(0.432, 0.478, 0.462, 0.491, 0.416, 0.435, 0.396, 0.408)

    backwards: ClassVar[bool] = False

    symbols: int = 15
    train_length: int = 63
    test_lengths: tuple[int, ...] = (63, 127, 255)
    training: Training = MAD_TRAINING
