"""HGRN."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.cells.hgrn import HGRUCell
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.bounds import LowerBound
from ritornello.layers.parts.norm import RMSNorm

__all__ = ["HGRN"]


class HGRN(Layer):
    """h ← f_t ⊙ h + (1 − f_t) ⊙ silu(W_c x_t), f = γ + (1 − γ) σ(W_f x); y = W_o (RMSNorm(h) ⊙ silu(W_g x)).

    Args:
        width: of x.
        expand: channels of h for each of x.
        lower_bound: γ, 0 ≤ γ < 1: no gate forgets faster. Where None it is learned, channel by channel, from layer to
            layer (see `LowerBound`): 0 at the first, so that a layer alone has none.
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
        ),
        carry=True,
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
        at_least(1, self.kind, expand=expand)
        size = expand * width
        self.in_proj = nn.Linear(width, 3 * size, bias=False)  # c, f and the gate
        self.bound = LowerBound(self.kind, size, lower_bound, place)
        self.cell = HGRUCell(size, lower_bound or 0.0)
        self.norm = RMSNorm(size)
        self.out_proj = nn.Linear(size, width, bias=False)
        self.spec = {"expand": expand}

    def leaves(self):
        return {"h": Leaf((self.norm.weight.shape[0],))}

    def mix(self, x, state, call: Call):
        candidate, forget, gate = self.in_proj(x).chunk(3, -1)
        low = self.bound(call)
        bounds = (low.expand_as(forget),) if isinstance(low, torch.Tensor) else ()
        y, h = call.run(self.cell, (forget, candidate, *bounds), state["h"])
        return self.out_proj(self.norm(y, gate)), {"h": h}
