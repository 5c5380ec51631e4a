"""Sequential digits: handwritten digits, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ritornello.errors import InputError
from ritornello.tasks._draw import integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["Digits"]

PIXELS, GREYS = 64, 17


@cache
def _images() -> tuple[Tensor, Tensor]:
    """(1797, 64) pixels from 0 to 16, and (1797,) digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("Task 'digits' takes its images from scikit-learn: pip install scikit-learn.") from None
    found: Any = load_digits()
    return torch.tensor(found.data).long(), torch.tensor(found.target).long()


@dataclass(frozen=True, kw_only=True)
class Digits(Task):
    """64 pixels, row by row, each one of 17 greys; at the end say the digit. Every fifth image is of the test.

    At a length T beyond 64 step t shows pixel ⌊64 t / T⌋. The images come with scikit-learn (Alpaydin & Kaynak 1998);
    reading digits pixel by pixel is of Le et al. 2015, arXiv:1504.00941.
    """

    name: ClassVar[str] = "digits"
    about: ClassVar[About] = About(
        title="Sequential digits",
        paper="Le et al. 2015, arXiv:1504.00941; images of Alpaydin & Kaynak 1998",
        tests="Gathering evidence over a whole sequence, in data that nobody generated.",
    )
    small: ClassVar = MappingProxyType({"training": Training(steps=600, batch=64, learning_rates=(3e-3, 1e-3))})

    train_length: int = PIXELS
    test_lengths: tuple[int, ...] = (PIXELS, 2 * PIXELS, 4 * PIXELS)
    training: Training = Training(steps=10_000, batch=64, learning_rates=(3e-3, 1e-3), weight_decay=0.1)

    @property
    def inputs(self) -> int:
        return GREYS

    @property
    def classes(self) -> int:
        return 10

    @property
    def shortest(self) -> int:
        return PIXELS

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        images, digits = _images()
        length = length or self.train_length
        of_test = torch.arange(len(images)) % 5 == 0
        among = (of_test if split == "test" else ~of_test).nonzero()[:, 0]
        rows = among[integers(0, len(among), (batch,), generator)]
        inputs = images[rows][:, torch.arange(length) * PIXELS // length]
        mask = torch.zeros_like(inputs, dtype=torch.bool)
        mask[:, -1] = True
        return Batch(inputs, digits[rows].unsqueeze(1).expand_as(inputs), mask)

    def solve(self, inputs: Tensor) -> Tensor:
        """By finding the image."""
        images, digits = _images()
        length = inputs.shape[1]
        pixels = inputs[:, (torch.arange(PIXELS) * length + PIXELS - 1) // PIXELS]
        return digits[torch.cdist(pixels.float(), images.float()).argmin(1)].unsqueeze(1).expand_as(inputs)
