"""HGRN."""

from __future__ import annotations

from typing import Any

from torch import nn

from ritornello.cells.hgrn import HGRUCell
from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.parts.norm import RMSNorm

__all__ = ["HGRN"]


class HGRN(Layer):
    """h ← f_t ⊙ h + (1 − f_t) ⊙ silu(W_c x_t), f = γ + (1 − γ) σ(W_f x); y = W_o (RMSNorm(h) ⊙ silu(W_g x)).

    Args:
        width: of x.
        expand: channels of h for each of x.
        lower_bound: γ, 0 ≤ γ < 1: no gate forgets faster. Where None, i / n for the i-th of n layers: the bounds with
            which the authors' learned ones start, so that later layers remember longer.
        place: (i, n), the i-th of n such layers, from 0. A model's backbone fills it in.

    Source: Qin et al. 2023, arXiv:2311.04823, sections 3.2 and 3.3, with the real state, norm and activations of the
    authors' later code.
    """

    kind = "hgrn"
    traits = Traits(
        About(
            "HGRN",
            "Qin et al. 2023, Hierarchically Gated Recurrent Neural Network for Sequence Modeling, arXiv:2311.04823",
            "diagonal",
            "h ← f ⊙ h + (1 − f) ⊙ silu(W_c x), f = γ + (1 − γ) σ(W_f x)",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        expand: int = 1,
        lower_bound: float | None = None,
        place: tuple[int, int] = (0, 1),
        **base: Any,
    ):
        super().__init__(width, **base)
        bound = place[0] / place[1] if lower_bound is None else lower_bound
        if not 0 <= bound < 1:
            raise InputError(f"`lower_bound` of {self.kind} is {bound}; wanted at least 0 and below 1.")
        if expand < 1:
            raise InputError(f"`expand` of {self.kind} is {expand}; wanted at least 1.")
        size = expand * width
        self.in_proj = nn.Linear(width, 3 * size, bias=False)  # c, f and the gate
        self.cell = HGRUCell(size, bound)
        self.norm = RMSNorm(size)
        self.out_proj = nn.Linear(size, width, bias=False)
        self.spec = {"expand": expand}

    def leaves(self):
        return {"h": Leaf((self.norm.weight.shape[0],))}

    def mix(self, x, state, call: Call):
        candidate, forget, gate = self.in_proj(x).chunk(3, -1)
        y, h = call.run(self.cell, (forget, candidate), state["h"])
        return self.out_proj(self.norm(y, gate)), {"h": h}
