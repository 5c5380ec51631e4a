"""S4."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells.lti import LTICell
from ritornello.cells.s4 import S4System
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.parts.hippo import legs, legs_normal
from ritornello.layers.parts.sizes import check_pairs, check_steps
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY

__all__ = ["S4"]


class S4(Layer):
    """h ← Ā h + B̄ x_t, s_t = 2 Re(C h) + D x_t, for each channel of x a state of N / 2 complex numbers; Ā and B̄ by the
    trapezoid rule from A = Λ − P P* and B, which start as HiPPO-LegS; y = u ⊙ σ(v) with u, v = W gelu(s) + b.

    Args:
        width: of x.
        state_size: N real numbers' worth of state for each channel. Even.
        step_min, step_max: the steps of the discretisation at the start, log-uniform per channel.

    Source: Gu et al. 2021, arXiv:2111.00396, sections 3 and 4; output as in the authors' code.
    """

    kind = "s4"
    traits = Traits(
        About(
            "S4",
            "Gu et al. 2021, Efficiently Modeling Long Sequences with Structured State Spaces, arXiv:2111.00396",
            "state space",
            "h ← Ā h + B̄ x, y = 2 Re(C h) + D x; Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A), A = Λ − P P*",
        ),
        affine=False,
    )
    tags: ClassVar = {
        f"cell.system.{name}": (NO_WEIGHT_DECAY, KEEP_FLOAT32)
        for name in ("log_step", "log_A_real", "A_imag", "P", "B")
    } | {f"cell.system.{name}": (NO_WEIGHT_DECAY,) for name in ("C", "D")}

    def __init__(
        self,
        width: int,
        *,
        state_size: int = 64,
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        **base: Any,
    ):
        super().__init__(width, **base)
        check_pairs(self.kind, state_size)
        check_steps(self.kind, step_min, step_max)
        values, vectors = (t[..., state_size // 2 :] for t in legs_normal(state_size))
        p = (torch.arange(state_size, dtype=torch.float64) + 0.5).sqrt()
        P, B = (vectors.mH @ t.to(vectors.dtype) for t in (p, legs(state_size)[1]))
        self.cell = LTICell(S4System(values, P, B, width, step_min, step_max), width, state_size)
        self.out_proj = nn.Linear(width, 2 * width)
        self.spec = {"state_size": state_size}

    def leaves(self):
        return {"h": Leaf((self.width, self.spec["state_size"]))}

    def mix(self, x, state, call: Call):
        h = state["h"]
        y, (h, _) = call.run(self.cell, x, (h, h.new_zeros(h.shape[:2])))
        return F.glu(self.out_proj(F.gelu(y))), {"h": h}
