"""What the formal languages share: strings of tokens with an answer after every prefix, trained short, tested long."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ritornello.tasks._draw import check, integers, lengths, within
from ritornello.tasks.base import Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["DELETANG", "Formal", "deletang", "grazzi", "pararnn", "small"]

DELETANG = "Deletang et al. 2023, arXiv:2207.02098"


@dataclass(frozen=True, kw_only=True)
class Formal(Task):
    """x₁ … x_T over `symbols` tokens; y_t, one of `labels`, is the answer to x₁ … x_t.

    Lengths as Grazzi et al. 2024, arXiv:2411.12537, and xLSTM, arXiv:2405.04517, who follow Deletang et al. 2023.

    Fields:
        shortest_train: training draws each row's length from it to `train_length`; the rest of a row does not count.
        dense: every step of a row counts, otherwise only its last.
    """

    prefixes: ClassVar[bool] = True
    symbols: ClassVar[int]
    labels: ClassVar[int]

    shortest_train: int = 3
    train_length: int = 40
    test_lengths: tuple[int, ...] = (40, 64, 128, 192, 256)
    dense: bool = False
    training: Training = Training(steps=100_000, batch=256, learning_rates=(1e-3, 5e-4, 1e-4), weight_decay=0.1)

    def __post_init__(self) -> None:
        check(
            self.shortest <= self.shortest_train <= self.train_length,
            f"`shortest_train` is {self.shortest_train}; wanted {self.shortest} to {self.train_length}, the "
            "`train_length`.",
        )

    @property
    def inputs(self) -> int:
        return self.symbols

    @property
    def classes(self) -> int:
        return self.labels

    def _strings(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """(B, T) tokens for rows of lengths `sizes` (B, 1), T the longest; each prefix that counts has an answer."""
        return integers(0, self.symbols, (len(sizes), int(sizes.max())), generator)

    def _counted(self, steps: Tensor, last: Tensor) -> Tensor:
        """The steps that count, of the `steps` of each row and its `last`."""
        return steps if self.dense else last

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        sizes = lengths(batch, self.shortest_train, self.train_length, length, generator)
        inputs = self._strings(sizes, generator)
        return Batch(inputs, self.solve(inputs), self._counted(*within(sizes)))

    @abstractmethod
    def solve(self, inputs: Tensor) -> Tensor: ...


def small(steps: int, *learning_rates: float, **fields: Any) -> MappingProxyType[str, Any]:
    """A small preset: an answer is asked for at every step, up to four times the length of training."""
    training = Training(steps=steps, batch=64, learning_rates=learning_rates or (1e-2, 3e-3))
    return MappingProxyType({"dense": True, "test_lengths": (40, 80, 160), "training": training, **fields})


def deletang(rnn: float, stack_rnn: float, tape_rnn: float, attention: float, lstm: float) -> dict[str, Figure]:
    """A row of their table 2, in per cent."""
    values = {"elman": rnn, "stack_rnn": stack_rnn, "tape_rnn": tape_rnn, "attention": attention, "lstm": lstm}
    size = "trained to length 40, mean over 41 to 500, best of all runs"
    return {method: Figure(value / 100, size, f"{DELETANG}, table 2") for method, value in values.items()}


def grazzi(**values: float) -> dict[str, Figure]:
    """Scaled accuracies of their table 3; ``_signed`` has eigenvalues down to −1."""
    source = "Grazzi et al. 2024, arXiv:2411.12537, table 3"
    size = "2 layers, d = 128, trained on lengths 3 to 40, tested on 40 to 256, best of 3 runs"
    return {
        method.replace("_signed", ", signed"): Figure(value, size, source, "scaled accuracy")
        for method, value in values.items()
    }


def pararnn(sizes: str, **values: float) -> dict[str, Figure]:
    """Accuracies of one layer, their table 1; the `sizes` of the task from their appendix C.2."""
    source = "Danieli et al. 2025, arXiv:2510.21450, table 1"
    size = f"one layer, d = 64, {sizes}, trained and tested at length 100, best of 3 runs"
    return {method: Figure(value, size, source) for method, value in values.items()}
