"""Induction heads: what followed the special token when it last stood here?"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import integers
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["InductionHeads"]


@dataclass(frozen=True, kw_only=True)
class InductionHeads(Task):
    """… s x … s: say x. The special token s stands once in a random text, and again as its last token.

    Olsson et al. 2022, arXiv:2209.11895; sizes of Gu & Dao 2023, arXiv:2312.00752, section 4.1.2.

    Fields:
        vocabulary: its size, with the special token, which is the last of it.
    """

    name: ClassVar[str] = "induction_heads"
    about: ClassVar[About] = About(
        title="Induction heads",
        paper="Olsson et al. 2022, arXiv:2209.11895",
        tests="Recalling what followed one token, over any distance, and nothing else.",
    )
    small: ClassVar = MappingProxyType(
        {
            "train_length": 64,
            "test_lengths": (64, 128, 256),
            "training": Training(steps=800, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    published: ClassVar = MappingProxyType(
        {
            "mamba": Figure(
                1.0, "2 layers, d = 64, every length from 2⁶ to 2²⁰", "Gu & Dao 2023, arXiv:2312.00752, table 11"
            ),
        }
    )

    vocabulary: int = 16
    train_length: int = 256
    test_lengths: tuple[int, ...] = (256, 512, 1024, 4096, 16384)
    training: Training = Training(steps=204_800, batch=8, learning_rates=(1e-3, 2e-4))

    @property
    def inputs(self) -> int:
        return self.vocabulary

    @property
    def classes(self) -> int:
        return self.vocabulary

    @property
    def answers(self) -> range:
        return range(self.vocabulary - 1)

    @property
    def shortest(self) -> int:
        return 3

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        special = self.vocabulary - 1
        inputs = integers(0, special, (batch, length), generator)
        place = integers(0, length - 2, (batch, 1), generator)
        targets = inputs.gather(1, place + 1).expand(batch, length)
        inputs = inputs.scatter(1, place, special)
        inputs[:, -1] = special
        mask = torch.zeros_like(inputs, dtype=torch.bool)
        mask[:, -1] = True
        return Batch(inputs, targets, mask)

    def solve(self, inputs: Tensor) -> Tensor:
        first = (inputs == self.vocabulary - 1).int().argmax(1, keepdim=True)
        return inputs.gather(1, (first + 1).clamp(max=inputs.shape[1] - 1)).expand_as(inputs)
