"""Even pairs: as many 01 as 10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ritornello.tasks.base import About
from ritornello.tasks.formal import DELETANG, Formal, small
from ritornello.typing import Tensor

__all__ = ["EvenPairs"]


@dataclass(frozen=True, kw_only=True)
class EvenPairs(Formal):
    """y_t = 1 where 01 and 10 together stand an even number of times in x₁ … x_t, that is, where x_t = x₁."""

    name: ClassVar[str] = "even_pairs"
    about: ClassVar[About] = About(
        title="Even pairs",
        paper=DELETANG,
        tests="Keeping the first token, however many follow, and comparing another with it.",
    )
    small: ClassVar = small(300)
    symbols: ClassVar[int] = 2
    labels: ClassVar[int] = 2

    @property
    def shortest(self) -> int:
        return 2  # one token alone always has an even number

    def solve(self, inputs: Tensor) -> Tensor:
        return (inputs == inputs[:, :1]).long()
