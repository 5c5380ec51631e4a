"""Parity of a string of bits."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, integers, lengths, within
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["Parity"]

GRAZZI = "Grazzi et al. 2024, arXiv:2411.12537, table 3"


@dataclass(frozen=True, kw_only=True)
class Parity(Task):
    """y_t = x₁ + … + x_t mod 2, over uniform bits.

    The smallest automaton whose state never forgets. Deletang et al. 2023, arXiv:2207.02098; lengths as Grazzi et al.
    2024, arXiv:2411.12537, and xLSTM.

    Fields:
        shortest_train: training draws each row's length from it to `train_length`; the rest of a row does not count.
        dense: every step of a row counts, otherwise only its last.
    """

    name: ClassVar[str] = "parity"
    about: ClassVar[About] = About(
        title="Parity",
        paper="Deletang et al. 2023, arXiv:2207.02098",
        tests="Tracking one bit of state through every token, beyond the lengths of training: a diagonal transition "
        "with values in [0, 1] cannot.",
    )
    small: ClassVar = MappingProxyType(
        {
            "dense": True,
            "test_lengths": (40, 80, 160),
            "training": Training(steps=600, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = MappingProxyType(
        {
            method: Figure(value, "2 layers, d = 128, lengths 40 to 256", GRAZZI, "scaled accuracy")
            for method, value in {
                "attention": 0.022, "mlstm": 0.087, "slstm": 1.0, "mamba": 0.0, "mamba, signed": 1.0,
                "delta_net": 0.017, "delta_net, signed": 1.0,
            }.items()
        }
    )  # fmt: skip

    shortest_train: int = 3
    train_length: int = 40
    test_lengths: tuple[int, ...] = (40, 64, 128, 192, 256)
    dense: bool = False
    training: Training = Training(steps=100_000, batch=256, learning_rates=(1e-3, 5e-4, 1e-4), weight_decay=0.1)

    def __post_init__(self) -> None:
        check(
            1 <= self.shortest_train <= self.train_length,
            f"`shortest_train` is {self.shortest_train}; wanted 1 to {self.train_length}, the `train_length`.",
        )

    @property
    def inputs(self) -> int:
        return 2

    @property
    def classes(self) -> int:
        return 2

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        steps, last = within(lengths(batch, self.shortest_train, self.train_length, length, generator))
        inputs = integers(0, 2, tuple(steps.shape), generator)
        return Batch(inputs, self.solve(inputs), steps if self.dense else last)

    def solve(self, inputs: Tensor) -> Tensor:
        return inputs.cumsum(1) % 2
