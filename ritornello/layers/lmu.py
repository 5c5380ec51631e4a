"""The Legendre memory unit as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.lmu import LMUCell
from ritornello.errors import InputError
from ritornello.layers.base import About, Traits, at_least
from ritornello.layers.parts.cells import CellLayer
from ritornello.layers.parts.hippo import discretize, legt

__all__ = ["LMU"]


class LMU(CellLayer):
    """m ← Ā m + B̄ (e_x · x_t + e_h · h + e_m · m), h ← tanh(W_x x_t + W_h h + W_m m), y = h: m holds the Legendre
    coefficients of what was written in the last `memory_length` steps, by a linear system that is not learned.

    Args:
        width: of x and y.
        order: of the polynomials, the size of m.
        memory_length: θ, how many steps m looks back.
        discretization: of the system: ``"zoh"``, ``"bilinear"`` or ``"euler"``.

    Source: Voelker et al. 2019, "Legendre Memory Units", NeurIPS, with one memory; initialisation as they say.
    """

    kind = "lmu"
    traits = Traits(
        About(
            "Legendre memory unit",
            "Voelker et al. 2019, Legendre Memory Units: Continuous-Time Representation in Recurrent Neural Networks, "
            "NeurIPS",
            "nonlinear",
            "m ← Ā m + B̄ (e_x · x + e_h · h + e_m · m), h ← tanh(W_x x + W_h h + W_m m)",
        ),
        affine=False,
    )
    names = ("h", "m")

    def __init__(
        self,
        width: int,
        *,
        order: int = 32,
        memory_length: float = 128.0,
        discretization: str = "zoh",
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, order=order)
        if memory_length <= 0:
            raise InputError(f"`memory_length` of {self.kind} is {memory_length}; wanted more than 0 steps.")
        self.memory_length, self.discretization = memory_length, discretization
        self.cell = LMUCell(width, width, *discretize(*legt(order, memory_length), method=discretization))
        self.spec = {"order": order}
