"""The adding problem: the sum of the two numbers that are marked."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["Adding"]


@dataclass(frozen=True, kw_only=True)
class Adding(Task):
    """(u_t, m_t), u uniform in [0, 1], m = 1 once in each half, otherwise 0; at the end say Σ m_t u_t.

    Always saying 1 has the error 1/6. Hochreiter & Schmidhuber 1997, section 5.4; form and sizes of Le et al. 2015,
    arXiv:1504.00941.
    """

    name: ClassVar[str] = "adding"
    about: ClassVar[About] = About(
        title="Adding problem",
        paper="Hochreiter & Schmidhuber 1997",
        tests="Keeping two real numbers exactly over a long time, and nothing of the others.",
        metric="error",
    )
    kind: ClassVar[str] = "regress"
    small: ClassVar = MappingProxyType(
        {
            "train_length": 50,
            "test_lengths": (50, 100, 200),
            "training": Training(steps=800, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )

    train_length: int = 150
    test_lengths: tuple[int, ...] = (150, 200, 300, 400)
    training: Training = Training(steps=60_000, batch=16, learning_rates=(1e-3, 1e-2))

    @property
    def inputs(self) -> int:
        return 2

    @property
    def classes(self) -> int:
        return 1

    @property
    def float_inputs(self) -> bool:
        return True

    @property
    def shortest(self) -> int:
        return 2

    @property
    def chance(self) -> float:
        return 1 / 6

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        half = length // 2
        marked = torch.cat((integers(0, half, (batch, 1), generator), integers(half, length, (batch, 1), generator)), 1)
        marks = torch.zeros(batch, length).scatter(1, marked, 1.0)
        inputs = torch.stack((torch.rand(batch, length, generator=generator), marks), -1)
        mask = torch.zeros(batch, length, dtype=torch.bool)
        mask[:, -1] = True
        return Batch(inputs, self.solve(inputs), mask)

    def solve(self, inputs: Tensor) -> Tensor:
        return inputs.prod(-1, keepdim=True).cumsum(1)

    def guess(self, inputs: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.ones(*inputs.shape[:2], 1)
