"""MEGA's moving average, without its attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells.ema import EMACell
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY

__all__ = ["EMA"]


class EMA(Layer):
    """h ← (1 − α ⊙ δ) ⊙ h + α ⊙ β x_t, y_t = silu(Σ_n η_n h[n] / √N + ω ⊙ x_t): N damped moving averages of each
    channel.

    ``"mega"`` is the whole, with the gated attention that reads y.

    Args:
        width: of x.
        state_size: N.

    Source: Ma et al. 2022, arXiv:2209.10655, section 3.1; ω, silu and the initialisation as in the authors' code.
    """

    kind = "ema"
    traits = Traits(
        About(
            "Damped moving average (MEGA)",
            "Ma et al. 2022, Mega: Moving Average Equipped Gated Attention, arXiv:2209.10655",
            "diagonal",
            "h ← (1 − α ⊙ δ) ⊙ h + α ⊙ β x, y = silu(ηᵀ h / √N + ω ⊙ x)",
        )
    )
    tags: ClassVar = {f"cell.{name}": (NO_WEIGHT_DECAY, KEEP_FLOAT32) for name in ("alpha", "delta")} | {
        f"cell.{name}": (NO_WEIGHT_DECAY,) for name in ("beta", "eta")
    }

    def __init__(self, width: int, *, state_size: int = 16, **base: Any):
        super().__init__(width, **base)
        at_least(1, self.kind, state_size=state_size)
        self.cell = EMACell(width, state_size)
        self.omega = nn.Parameter(torch.randn(width))
        self.spec = {"state_size": state_size}

    def leaves(self):
        return {"h": Leaf((self.width, self.spec["state_size"]))}

    def mix(self, x, state, call: Call):
        y, h = call.run(self.cell, x, state["h"])
        return F.silu(y + self.omega.to(x.dtype) * x), {"h": h}
