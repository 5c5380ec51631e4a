"""minLSTM as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.min_lstm import MinLSTMCell
from ritornello.layers.base import About, Traits
from ritornello.layers.parts.cells import CellLayer

__all__ = ["MinLSTM"]


class MinLSTM(CellLayer):
    """h_t = f/(f + i) ⊙ h_{t−1} + i/(f + i) ⊙ g(W_h x_t), f = σ(W_f x_t), i = σ(W_i x_t); the output is h: the plain
    cell, without expansion.

    Args:
        width: of x and h.
        log_space: g as the paper's log-space form has it (see `MinLSTMCell`), or the identity.

    Source: Feng et al. 2024, arXiv:2410.01201.
    """

    kind = "min_lstm"
    traits = Traits(
        About(
            "minLSTM",
            "Feng et al. 2024, Were RNNs All We Needed?, arXiv:2410.01201",
            "diagonal",
            "h ← f/(f + i) ⊙ h + i/(f + i) ⊙ g(W_h x), f = σ(W_f x), i = σ(W_i x)",
        )
    )

    def __init__(self, width: int, *, log_space: bool = True, **base: Any):
        super().__init__(width, **base)
        self.cell = MinLSTMCell(width, width, log_space)
        self.spec = {"width": width}
