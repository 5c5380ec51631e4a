"""In-context linear regression."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["LinearRegression"]


@dataclass(frozen=True, kw_only=True)
class LinearRegression(Task):
    """x₁ y₁ x₂ y₂ …, yᵢ = w·xᵢ/√d with x, w ~ N(0, I): at xᵢ say yᵢ, from the pairs before it.

    Inputs have d + 1 features, (x, 0) or (0, y). The best is least squares of the least norm, which after i < d pairs
    has the error 1 − i/d and then none; saying 0 has the error 1. Garg et al. 2022, arXiv:2208.01066, whose error is
    likewise divided by d.

    Fields:
        dimension: d.
    """

    name: ClassVar[str] = "linear_regression"
    about: ClassVar[About] = About(
        title="In-context linear regression",
        paper="Garg et al. 2022, arXiv:2208.01066",
        tests="Learning a linear map from the examples in the context: what one step of a delta rule does by itself.",
        metric="error",
    )
    kind: ClassVar[str] = "regress"
    prefixes: ClassVar[bool] = True
    small: ClassVar = MappingProxyType(
        {
            "dimension": 4,
            "train_length": 32,
            "test_lengths": (32, 64, 128),
            "training": Training(steps=1500, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )

    dimension: int = 20
    train_length: int = 82
    test_lengths: tuple[int, ...] = (82, 120, 160)
    training: Training = Training(steps=500_000, batch=64, learning_rates=(1e-4,))

    @property
    def inputs(self) -> int:
        return self.dimension + 1

    @property
    def classes(self) -> int:
        return 1

    @property
    def float_inputs(self) -> bool:
        return True

    @property
    def chance(self) -> float:
        return 1.0

    @property
    def ceiling(self) -> float:
        pairs = (self.train_length + 1) // 2
        return sum(max(0.0, 1 - i / self.dimension) for i in range(pairs)) / pairs

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        pairs = (length + 1) // 2
        x = torch.randn(batch, pairs, self.dimension, generator=generator)
        w = torch.randn(batch, self.dimension, 1, generator=generator)
        y = x @ w / self.dimension**0.5
        inputs = torch.zeros(batch, pairs, 2, self.dimension + 1)
        inputs[:, :, 0, :-1] = x
        inputs[:, :, 1, -1:] = y
        targets = torch.stack((y, torch.zeros_like(y)), 2)
        mask = (torch.arange(length) % 2 == 0).repeat(batch, 1)
        return Batch(inputs.flatten(1, 2)[:, :length], targets.flatten(1, 2)[:, :length], mask)

    def solve(self, inputs: Tensor) -> Tensor:
        """w ← w + Px (y − w·x)/(x·Px), P ← P − Px(Px)ᵀ/(x·Px): the interpolant of least norm, pair by pair."""
        x, y = inputs[:, ::2, :-1].double(), inputs[:, 1::2, -1:].double()
        w = torch.zeros_like(x[:, 0])
        free = torch.eye(self.dimension, dtype=x.dtype).repeat(len(x), 1, 1)  # what no x has reached yet
        answers = torch.zeros(*inputs.shape[:2], 1, dtype=x.dtype)
        for i in range(x.shape[1]):
            answers[:, 2 * i, 0] = (w * x[:, i]).sum(-1)
            if i < min(y.shape[1], self.dimension):
                new = (free @ x[:, i].unsqueeze(-1)).squeeze(-1)
                size = (new * x[:, i]).sum(-1, keepdim=True)
                w = w + new * (y[:, i] - answers[:, 2 * i]) / size
                free = free - new.unsqueeze(-1) * (new / size).unsqueeze(1)
        return answers.to(inputs.dtype)
