"""Cycle navigation: where one stands on a circle of five."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ritornello.tasks.base import About
from ritornello.tasks.formal import DELETANG, Formal, small
from ritornello.typing import Tensor

__all__ = ["CycleNavigation"]

CYCLE = 5


@dataclass(frozen=True, kw_only=True)
class CycleNavigation(Formal):
    """y_t = d(x₁) + … + d(x_t) mod 5, where d is 0, 1, −1 for the tokens stay, forwards, backwards."""

    name: ClassVar[str] = "cycle_navigation"
    about: ClassVar[About] = About(
        title="Cycle navigation",
        paper=DELETANG,
        tests="Counting modulo five in both directions: a rotation, which takes complex eigenvalues or several steps.",
    )
    small: ClassVar = small(1000)
    symbols: ClassVar[int] = 3
    labels: ClassVar[int] = CYCLE

    def solve(self, inputs: Tensor) -> Tensor:
        return ((inputs == 1).long() - (inputs == 2).long()).cumsum(1) % CYCLE
