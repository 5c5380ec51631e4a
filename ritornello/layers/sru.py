"""The simple recurrent unit as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.sru import SRUCell
from ritornello.layers.base import About, Call, Layer, Leaf, Traits

__all__ = ["SRU"]


class SRU(Layer):
    """c ← f_t ⊙ c + (1 − f_t) ⊙ W x_t, y_t = r_t ⊙ c + (1 − r_t) ⊙ α x_t; f and r = σ(W x + v ⊙ c_{t−1} + b): the gates
    see the state channel by channel.

    Args:
        width: of x and y.
        scale: α; √(1 + 2 e^bias) where None.
        bias: the initial value of r's bias; below 0 the input passes by at first.

    Source: Lei et al. 2018, arXiv:1709.02755, eq. 1–4 and section 3.2.
    """

    kind = "sru"
    traits = Traits(
        About(
            "SRU",
            "Lei et al. 2018, Simple Recurrent Units for Highly Parallelizable Recurrence, arXiv:1709.02755",
            "nonlinear",
            "c ← f ⊙ c + (1 − f) ⊙ W x, y = r ⊙ c + (1 − r) ⊙ α x; f, r = σ(W x + v ⊙ c + b)",
        ),
        affine=False,
    )

    def __init__(self, width: int, *, scale: float | None = None, bias: float = 0.0, **base: Any):
        super().__init__(width, **base)
        self.cell = SRUCell(width, scale, bias)
        self.spec = {"width": width}

    def leaves(self):
        return {"c": Leaf((self.width,))}

    def mix(self, x, state, call: Call):
        c = state["c"]
        y, (c, _) = call.run(self.cell, x, (c, c.new_zeros(c.shape)))
        return y, {"c": c}
