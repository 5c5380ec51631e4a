"""Word problems of finite groups: the product of all elements so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch

from ritornello.tasks._draw import check, doubled, integers
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["A5", "S3", "S4", "S5", "Z60", "GroupWords", "table"]


def _even(p: Sequence[int]) -> bool:
    return sum(p[i] > p[j] for j in range(len(p)) for i in range(j)) % 2 == 0


@cache
def table(group: str) -> Tensor:
    """(n, n) the product of elements g and h of ``Sn``, ``An`` (g after h, elements in lexical order) or ``Zn``."""
    kind, size = group[0], int(group[1:])
    if kind == "Z":
        return (torch.arange(size).unsqueeze(1) + torch.arange(size)) % size
    elements = [p for p in permutations(range(size)) if kind == "S" or _even(p)]
    number = {p: i for i, p in enumerate(elements)}
    return torch.tensor([[number[tuple(g[i] for i in h)] for h in elements] for g in elements])


@dataclass(frozen=True, kw_only=True)
class GroupWords(Task):
    """y_t = x₁ · x₂ ⋯ x_t, over uniform elements of a finite group; every step counts.

    Merrill et al. 2024, arXiv:2404.08819; sizes as DeltaProduct, Siems et al. 2025, arXiv:2502.10297.

    Fields:
        doublings: how often `train_length` is doubled in the first half of training, to arrive at its value.
    """

    prefixes: ClassVar[bool] = True
    group: ClassVar[str]

    doublings: int = 0
    train_length: int = 128
    test_lengths: tuple[int, ...] = (128, 256, 384, 512)
    training: Training = Training(steps=4_900, batch=2048, learning_rates=(1e-3,))

    def __post_init__(self) -> None:
        least = self.train_length >> self.doublings
        check(least >= 1, f"`doublings` is {self.doublings}; a `train_length` of {self.train_length} has not so many.")

    @property
    def inputs(self) -> int:
        return len(table(self.group))

    @property
    def classes(self) -> int:
        return len(table(self.group))

    def stage(self, progress: float) -> Self:
        return doubled(self, progress, self.doublings)

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        inputs = integers(0, self.inputs, (batch, length or self.train_length), generator)
        return Batch(inputs, self.solve(inputs), torch.ones_like(inputs, dtype=torch.bool))

    def solve(self, inputs: Tensor) -> Tensor:
        product, step = table(self.group), 1
        while step < inputs.shape[1]:  # after it, each place holds the product of the last 2·step elements
            inputs = torch.cat((inputs[:, :step], product[inputs[:, :-step], inputs[:, step:]]), 1)
            step *= 2
        return inputs


def _about(name: str, tests: str) -> About:
    return About(title=f"Words of {name}", paper="Merrill et al. 2024, arXiv:2404.08819", tests=tests)


def _small(steps: int) -> MappingProxyType[str, Any]:
    training = Training(steps=steps, batch=64, learning_rates=(1e-2, 3e-3))
    return MappingProxyType({"doublings": 3, "train_length": 16, "test_lengths": (16, 32, 64), "training": training})


def _published(householders: int) -> MappingProxyType[str, Figure]:
    size = "one layer, 8 heads, trained on 128 steps; the fewest Householder products that solve it"
    source = "Siems et al. 2025, arXiv:2502.10297, section 5 and figure 4"
    return MappingProxyType({f"delta_product, {householders} products": Figure(1.0, size, source)})


@dataclass(frozen=True, kw_only=True)
class S3(GroupWords):
    """All permutations of three things: the smallest group that is not commutative, 6 elements."""

    name: ClassVar[str] = "s3"
    about: ClassVar[About] = _about("S₃", "State tracking where the order of steps counts; two reflections a step do.")
    small: ClassVar = _small(1000)
    published: ClassVar = _published(2)
    group: ClassVar[str] = "S3"


@dataclass(frozen=True, kw_only=True)
class S4(GroupWords):
    """All permutations of four things, 24 elements; solvable."""

    name: ClassVar[str] = "s4"
    about: ClassVar[About] = _about("S₄", "State tracking in the largest symmetric group that is solvable.")
    small: ClassVar = _small(2000)
    published: ClassVar = _published(2)
    group: ClassVar[str] = "S4"


@dataclass(frozen=True, kw_only=True)
class A5(GroupWords):
    """The even permutations of five things, 60 elements: the smallest group that is not solvable."""

    name: ClassVar[str] = "a5"
    about: ClassVar[About] = _about(
        "A₅", "State tracking that is complete for NC¹: beyond attention and diagonal recurrences of constant depth."
    )
    small: ClassVar = _small(2000)
    published: ClassVar = _published(2)
    group: ClassVar[str] = "A5"


@dataclass(frozen=True, kw_only=True)
class S5(GroupWords):
    """All permutations of five things, 120 elements; not solvable."""

    name: ClassVar[str] = "s5"
    about: ClassVar[About] = _about("S₅", "State tracking that is complete for NC¹, as following five chess pieces.")
    small: ClassVar = _small(2000)
    published: ClassVar = _published(4)
    group: ClassVar[str] = "S5"


@dataclass(frozen=True, kw_only=True)
class Z60(GroupWords):
    """Addition modulo 60: as many elements as A₅, but commutative."""

    name: ClassVar[str] = "z60"
    about: ClassVar[About] = _about("Z₆₀", "Counting modulo sixty: what A₅ is compared with, being commutative.")
    small: ClassVar = _small(2000)
    group: ClassVar[str] = "Z60"
