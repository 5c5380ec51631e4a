"""minGRU as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.min_gru import MinGRUCell
from ritornello.layers.base import About, Traits
from ritornello.layers.parts.cells import CellLayer

__all__ = ["MinGRU"]


class MinGRU(CellLayer):
    """h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ g(W_h x_t), z_t = σ(W_z x_t); the output is h: the plain cell, without
    expansion.

    Args:
        width: of x and h.
        log_space: g as the paper's log-space form has it (see `MinGRUCell`), or the identity.

    Source: Feng et al. 2024, arXiv:2410.01201.
    """

    kind = "min_gru"
    traits = Traits(
        About(
            "minGRU",
            "Feng et al. 2024, Were RNNs All We Needed?, arXiv:2410.01201",
            "diagonal",
            "h ← (1 − z) ⊙ h + z ⊙ g(W_h x), z = σ(W_z x)",
        )
    )

    def __init__(self, width: int, *, log_space: bool = True, **base: Any):
        super().__init__(width, **base)
        self.cell = MinGRUCell(width, width, log_space)
        self.spec = {"width": width}
