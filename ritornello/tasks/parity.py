"""Parity of a string of bits."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from ritornello.tasks.base import About
from ritornello.tasks.formal import DELETANG, Formal, deletang, grazzi, pararnn, small
from ritornello.typing import Tensor

__all__ = ["Parity"]


@dataclass(frozen=True, kw_only=True)
class Parity(Formal):
    """y_t = x₁ + … + x_t mod 2, over uniform bits: the smallest automaton whose state never forgets."""

    name: ClassVar[str] = "parity"
    about: ClassVar[About] = About(
        title="Parity",
        paper=DELETANG,
        tests="Tracking one bit of state through every token, beyond the lengths of training: a diagonal transition "
        "with values in [0, 1] cannot.",
    )
    small: ClassVar = small(500)
    published: ClassVar = MappingProxyType(
        deletang(100, 100, 100, 52.0, 100)
        | grazzi(
            attention=0.022,
            mlstm=0.087,
            slstm=1.0,
            mamba=0.0,
            mamba_signed=1.0,
            delta_net=0.017,
            delta_net_signed=1.0,
        )
        | pararnn("the mixer alone", mamba2=0.51, para_gru=1.0, para_lstm=1.0)
    )
    symbols: ClassVar[int] = 2
    labels: ClassVar[int] = 2

    def solve(self, inputs: Tensor) -> Tensor:
        return inputs.cumsum(1) % 2
