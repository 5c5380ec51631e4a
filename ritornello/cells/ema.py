"""MEGA's damped exponential moving average."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.cell import AffineCell
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["EMACell"]


class EMACell(AffineCell):
    """h_t = (1 − α ⊙ δ) ⊙ h_{t−1} + α ⊙ β x_t, y_t = Σ_n η_n h_t[n] / √N: N moving averages of each channel, α and δ in
    (0, 1).

    Args:
        channels: of x.
        size: N.

    Source: Ma et al. 2022, arXiv:2209.10655, section 3.1; initialisation as in the authors' code.
    """

    def __init__(self, channels: int, size: int = 16):
        super().__init__()
        self.state_shape = (channels, size)
        self.alpha = nn.Parameter(0.2 * torch.randn(channels, size))  # before σ
        self.delta = nn.Parameter(0.2 * torch.randn(channels, size))
        signs = 1.0 - 2 * (torch.arange(size) % 2)  # more stable than equal signs, the authors say
        self.beta = nn.Parameter(signs + 0.02 * torch.randn(channels, size))
        self.eta = nn.Parameter(torch.randn(channels, size))

    def transition(self, u: Tensor) -> Diagonal:
        wide = accumulation_dtype(u.dtype)
        alpha, delta = torch.sigmoid(self.alpha.to(wide)), torch.sigmoid(self.delta.to(wide))
        b = (alpha * self.beta.to(wide)) * u.to(wide).unsqueeze(-1)
        return Diagonal((1 - alpha * delta).expand_as(b), b)

    def finish(self, u: Tensor, o: Tensor) -> Tensor:
        return ((o * self.eta.to(o.dtype)).sum(-1) * self.eta.shape[1] ** -0.5).to(u.dtype)
