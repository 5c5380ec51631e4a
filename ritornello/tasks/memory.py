"""Memory of a given length: the parity of the last N bits, and a bit compared with one N steps ago."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["DelayedMatch", "NParity", "Window"]

PAPER = "Khajehabdollahi et al. 2024, arXiv:2309.12927"


@dataclass(frozen=True, kw_only=True)
class Window(Task):
    """Uniform bits; y_t depends on x_{t−N+1} … x_t. Steps before the N-th do not count.

    The curriculum of the paper raises N by one whenever it is mastered; here N grows evenly from 2 to its value over
    the first four fifths of training.

    Fields:
        window: N.
    """

    prefixes: ClassVar[bool] = True

    window: int = 20
    train_length: int = 100
    test_lengths: tuple[int, ...] = (100, 200, 400)
    training: Training = Training(steps=50_000, batch=64, learning_rates=(1e-3, 3e-4))

    def __post_init__(self) -> None:
        check(2 <= self.window <= self.train_length, f"`window` is {self.window}; wanted 2 to {self.train_length}.")

    @property
    def inputs(self) -> int:
        return 2

    @property
    def classes(self) -> int:
        return 2

    @property
    def shortest(self) -> int:
        return self.window

    def stage(self, progress: float) -> Self:
        return replace(self, window=min(self.window, 2 + int(progress / 0.8 * (self.window - 1))))

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        inputs = integers(0, 2, (batch, length or self.train_length), generator)
        mask = (torch.arange(inputs.shape[1]) >= self.window - 1).repeat(batch, 1)
        return Batch(inputs, self.solve(inputs), mask)

    def _before(self, x: Tensor, steps: int) -> Tensor:
        """x of `steps` earlier, 0 where there is none."""
        steps = min(steps, x.shape[1])
        return torch.cat((torch.zeros_like(x[:, :steps]), x[:, : x.shape[1] - steps]), 1)

    @abstractmethod
    def solve(self, inputs: Tensor) -> Tensor: ...


def _small(window: int, steps: int) -> MappingProxyType[str, Any]:
    training = Training(steps=steps, batch=64, learning_rates=(3e-3, 1e-3))
    return MappingProxyType(
        {"window": window, "train_length": 64, "test_lengths": (64, 128, 256), "training": training}
    )


@dataclass(frozen=True, kw_only=True)
class NParity(Window):
    """y_t = x_{t−N+1} + … + x_t mod 2."""

    name: ClassVar[str] = "n_parity"
    about: ClassVar[About] = About(
        title="N-parity",
        paper=PAPER,
        tests="The parity of a window that slides: state tracking that must also forget, each bit at its time.",
    )
    small: ClassVar = _small(5, 1000)

    def solve(self, inputs: Tensor) -> Tensor:
        sums = inputs.cumsum(1)
        return (sums - self._before(sums, self.window)) % 2


@dataclass(frozen=True, kw_only=True)
class DelayedMatch(Window):
    """y_t = 1 where x_t = x_{t−N+1}."""

    name: ClassVar[str] = "delayed_match"
    about: ClassVar[About] = About(
        title="Delayed match to sample",
        paper=PAPER,
        tests="A queue: every bit is held for N steps, then compared, then let go.",
    )
    small: ClassVar = _small(8, 1000)

    def solve(self, inputs: Tensor) -> Tensor:
        return (inputs == self._before(inputs, self.window - 1)).long()
