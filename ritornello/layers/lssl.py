"""LSSL, the linear state space layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells.lti import LTICell
from ritornello.cells.s4 import DenseSystem
from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.hippo import lagt, legs, legt
from ritornello.layers.parts.sizes import check_steps
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY
from ritornello.typing import Tensor

__all__ = ["LSSL"]

OPERATORS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {"legs": legs, "legt": legt, "lagt": lagt}


class LSSL(Layer):
    """h ← Ā h + B̄ x_t, s_t = C h + D x_t, for each channel of x; Ā and B̄ by the trapezoid rule from a HiPPO operator
    that is not learned, with a step Δ of each channel's own; y = W gelu(s) + b.

    Args:
        width: of x.
        state_size: N, of the state of each channel.
        operator: ``"legs"``, ``"legt"`` or ``"lagt"``.
        step_min, step_max: Δ at the start, log-uniform per channel.

    Source: Gu et al. 2021, arXiv:2110.13985, sections 3 and 4 (LSSL-fixed, with one output per channel).
    """

    kind = "lssl"
    traits = Traits(
        About(
            "LSSL",
            "Gu et al. 2021, Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space "
            "Layers, arXiv:2110.13985",
            "state space",
            "h ← Ā h + B̄ x, y = C h + D x; Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A), A of HiPPO",
        ),
        affine=False,
    )
    tags: ClassVar = {"cell.system.log_step": (NO_WEIGHT_DECAY, KEEP_FLOAT32)} | {
        f"cell.system.{name}": (NO_WEIGHT_DECAY,) for name in ("C", "D")
    }

    def __init__(
        self,
        width: int,
        *,
        state_size: int = 64,
        operator: str = "legs",
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, state_size=state_size)
        if operator not in OPERATORS:
            raise InputError(f"`operator` of {self.kind} is {operator!r}. {nearest(str(operator), OPERATORS)}")
        check_steps(self.kind, step_min, step_max)
        # They are no weights: a model that is outlined on the meta device needs their numbers.
        with torch.device("cpu"):
            A, B = OPERATORS[operator](state_size)
        system = DenseSystem(A, B, width, step_min, step_max)
        self.operator = operator
        self.cell = LTICell(system, width, state_size)
        self.out_proj = nn.Linear(width, width)
        self.spec = {"state_size": state_size}

    def leaves(self):
        return {"h": Leaf((self.width, self.spec["state_size"]))}

    def mix(self, x, state, call: Call):
        h = state["h"]
        y, (h, _) = call.run(self.cell, x, (h, h.new_zeros(h.shape[:2])))
        return self.out_proj(F.gelu(y)), {"h": h}
