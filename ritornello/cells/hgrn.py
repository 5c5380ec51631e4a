"""The hierarchically gated recurrent unit."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ritornello.cell import AffineCell
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulated

__all__ = ["HGRUCell"]


class HGRUCell(AffineCell):
    """h_t = f_t ⊙ h_{t−1} + (1 − f_t) ⊙ silu(c_t), f = γ + (1 − γ) σ(g): no gate forgets faster than its lower bound γ.

    It is given (g, c), or (g, c, γ) where the bound is not a constant, each (B, T, size).

    Args:
        size: of h.
        lower_bound: γ, where it is not given.

    Source: Qin et al. 2023, arXiv:2311.04823, section 3.2, real as in the authors' later code.
    """

    def __init__(self, size: int, lower_bound: float = 0.0):
        super().__init__()
        self.state_shape = (size,)
        self.lower_bound = lower_bound

    def transition(self, u: tuple[Tensor, ...]) -> Diagonal:
        gate, candidate, *bound = u
        gate = accumulated(gate)
        low = bound[0].to(gate.dtype) if bound else self.lower_bound
        forget = low + (1 - low) * torch.sigmoid(gate)
        enter = (1 - low) * torch.sigmoid(-gate)  # 1 − f, without its cancellation
        return Diagonal(forget, enter * F.silu(candidate).to(gate.dtype))

    def finish(self, u: tuple[Tensor, ...], o: Tensor) -> Tensor:
        return o.to(u[1].dtype)
