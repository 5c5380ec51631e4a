"""The LRU as a layer."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ritornello.cells.lru import LRUCell
from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.cells import run_complex
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY

__all__ = ["LRU"]


class LRU(Layer):
    """h_t = a ⊙ h_{t−1} + γ ⊙ (B x_t), y_t = Re(C h_t) + D ⊙ x_t, a = exp(−e^ν + i e^θ), h complex; γ starts at
    √(1 − |a|²).

    Args:
        width: of x.
        state_size: of h, in complex numbers; the width where None.
        r_min, r_max: of |a| at the start, uniform by area; nearer to 1 for longer memories.
        max_phase: the largest angle of a at the start; smaller for longer memories.

    Source: Orvieto et al. 2023, arXiv:2303.06349, section 3.
    """

    kind = "lru"
    traits = Traits(
        About(
            "LRU",
            "Orvieto et al. 2023, Resurrecting Recurrent Neural Networks for Long Sequences, arXiv:2303.06349",
            "diagonal",
            "h ← exp(−e^ν + i e^θ) ⊙ h + γ ⊙ (B x), y = Re(C h) + D ⊙ x",
        )
    )
    tags: ClassVar = {
        f"cell.{name}": (NO_WEIGHT_DECAY, KEEP_FLOAT32) for name in ("nu_log", "theta_log", "gamma_log")
    } | {"cell.D": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        state_size: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        **base: Any,
    ):
        super().__init__(width, **base)
        size = width if state_size is None else state_size
        at_least(1, self.kind, state_size=size)
        if not 0 <= r_min <= r_max <= 1:
            raise InputError(f"`r_min`, `r_max` of {self.kind} are {r_min}, {r_max}; wanted 0 ≤ r_min ≤ r_max ≤ 1.")
        self.cell = LRUCell(width, size, r_min, r_max, max_phase)
        self.spec = {"state_size": size}

    def leaves(self):
        return {"h": Leaf((self.cell.state_size, 2))}

    def mix(self, x, state, call: Call):
        return run_complex(call, self.cell, x, state)
