"""S5."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells.s5 import S5Cell
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, divide
from ritornello.layers.parts.cells import run_complex
from ritornello.layers.parts.hippo import legs_normal
from ritornello.layers.parts.sizes import check_pairs, check_steps, heads_for
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY

__all__ = ["S5"]


class S5(Layer):
    """h ← e^{ΔΛ} ⊙ h + (e^{ΔΛ} − 1) / Λ ⊙ (B x_t), s_t = 2 Re(C h) + D ⊙ x_t: one complex diagonal state that all
    channels share; y = g ⊙ σ(W g + b) with g = gelu(s), by its tanh approximation.

    Args:
        width: of x.
        state_size: P real numbers' worth of state, as P / 2 complex ones; the width where None.
        blocks: Λ starts as so many copies of the spectrum of HiPPO-LegS's normal part, each of P / blocks; about 32
            where None.
        step_min, step_max: Δ at the start, log-uniform per pole.

    Source: Smith et al. 2022, arXiv:2208.04933, sections 3 and 4; initialisation and output as in the authors' code.
    """

    kind = "s5"
    traits = Traits(
        About(
            "S5",
            "Smith et al. 2022, Simplified State Space Layers for Sequence Modeling, arXiv:2208.04933",
            "state space",
            "h ← e^{ΔΛ} ⊙ h + (e^{ΔΛ} − 1) / Λ ⊙ (B x), y = 2 Re(C h) + D ⊙ x",
        )
    )
    tags: ClassVar = {
        f"cell.{name}": (NO_WEIGHT_DECAY, KEEP_FLOAT32) for name in ("log_step", "Lambda_real", "Lambda_imag")
    } | {"cell.B": (NO_WEIGHT_DECAY,), "cell.D": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        state_size: int | None = None,
        blocks: int | None = None,
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        **base: Any,
    ):
        super().__init__(width, **base)
        size = 2 * ((width + 1) // 2) if state_size is None else state_size
        check_pairs(self.kind, size)
        check_steps(self.kind, step_min, step_max)
        blocks = heads_for(size // 2, 16) if blocks is None else blocks
        pairs = divide(self.kind, "state_size / 2", size // 2, "blocks", blocks)
        values, vectors = legs_normal(2 * pairs)
        values, vectors = values[:pairs], vectors[:, :pairs]
        # Real B and C in the coordinates of each block's eigenvectors; of every pair of coordinates one is kept.
        B = torch.randn(blocks, 2 * pairs, width, dtype=torch.float64) * size**-0.5
        C = torch.randn(2, width, blocks, 2 * pairs, dtype=torch.float64) * size**-0.5
        B = (vectors.mH @ B.to(vectors.dtype)).flatten(0, 1)
        C = (torch.complex(*C.unbind()) @ vectors).flatten(1)
        self.cell = S5Cell(values.repeat(blocks), B, C, step_min, step_max)
        self.gate_proj = nn.Linear(width, width)
        self.spec = {"state_size": size}

    def leaves(self):
        return {"h": Leaf((self.spec["state_size"] // 2, 2))}

    def mix(self, x, state, call: Call):
        y, new = run_complex(call, self.cell, x, state)
        y = F.gelu(y, approximate="tanh")
        return y * torch.sigmoid(self.gate_proj(y)), new
