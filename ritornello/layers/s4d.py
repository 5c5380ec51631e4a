"""S4D."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells.s4d import S4DCell
from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.parts.cells import run_complex
from ritornello.layers.parts.hippo import legs_normal
from ritornello.layers.parts.sizes import check_pairs, check_steps
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY
from ritornello.typing import Tensor

__all__ = ["S4D"]


def poles(kind: str, size: int) -> Tensor:
    """A of the size / 2 conjugate pairs: ``"lin"`` −½ + iπn, ``"inv"`` −½ + i (N/π)(N/(2n + 1) − 1), ``"legs"`` the
    spectrum of HiPPO-LegS's normal part."""
    n = torch.arange(size // 2, dtype=torch.float64)
    if kind == "legs":
        return legs_normal(size)[0][size // 2 :]
    frequency = math.pi * n if kind == "lin" else size / math.pi * (size / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), frequency)


INITS = ("lin", "inv", "legs")


class S4D(Layer):
    """h ← e^{ΔA} ⊙ h + x_t, s_t = 2 Re(C (e^{ΔA} − 1) / A · h) + D ⊙ x_t, for each channel of x a complex diagonal
    state; y = u ⊙ σ(v) with u, v = W gelu(s) + b.

    Args:
        width: of x.
        state_size: N real numbers' worth of state for each channel, as N / 2 complex ones. Even.
        init: A at the start: ``"lin"``, ``"inv"`` or ``"legs"``.
        step_min, step_max: Δ at the start, log-uniform per channel.

    Source: Gu et al. 2022, arXiv:2206.11893, section 3; initialisation and output as in the authors' s4d.py.
    """

    kind = "s4d"
    traits = Traits(
        About(
            "S4D",
            "Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models, "
            "arXiv:2206.11893",
            "state space",
            "h ← e^{ΔA} ⊙ h + x, y = 2 Re(C (e^{ΔA} − 1) / A · h) + D ⊙ x",
        )
    )
    tags: ClassVar = {
        f"cell.{name}": (NO_WEIGHT_DECAY, KEEP_FLOAT32) for name in ("log_step", "log_A_real", "A_imag")
    } | {"cell.C": (NO_WEIGHT_DECAY,), "cell.D": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        state_size: int = 64,
        init: str = "lin",
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        **base: Any,
    ):
        super().__init__(width, **base)
        check_pairs(self.kind, state_size)
        if init not in INITS:
            raise InputError(f"`init` of {self.kind} is {init!r}. {nearest(str(init), INITS)}")
        check_steps(self.kind, step_min, step_max)
        self.cell = S4DCell(poles(init, state_size), width, step_min, step_max)
        self.out_proj = nn.Linear(width, 2 * width)
        self.spec = {"state_size": state_size}

    def leaves(self):
        return {"h": Leaf((self.width, self.spec["state_size"] // 2, 2))}

    def mix(self, x, state, call: Call):
        y, new = run_complex(call, self.cell, x, state)
        return F.glu(self.out_proj(F.gelu(y))), new
