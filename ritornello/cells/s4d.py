"""The diagonal state space model."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.cell import AffineCell
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["S4DCell"]


class S4DCell(AffineCell):
    """h_t = e^{ΔA} ⊙ h_{t−1} + x_t, y_t = 2 Re(C' h_t) + D ⊙ x_t with C' = C (e^{ΔA} − 1) / A: for each channel of x a
    complex state of N / 2 numbers, A = −e^a + i ω, discretised with zero-order hold.

    Args:
        poles: A at the start, complex (N / 2,), the same for every channel.
        channels: of x.
        step_min, step_max: Δ at the start, log-uniform per channel.

    Source: Gu et al. 2022, arXiv:2206.11893, sections 3.1 to 3.3.
    """

    def __init__(self, poles: Tensor, channels: int, step_min: float = 1e-3, step_max: float = 1e-1):
        super().__init__()
        poles = poles.expand(channels, -1)
        spread = math.log(step_max / step_min)
        self.log_step = nn.Parameter(torch.rand(channels) * spread + math.log(step_min))
        self.log_A_real = nn.Parameter((-poles.real).log().float())
        self.A_imag = nn.Parameter(poles.imag.float().clone())
        self.C = nn.Parameter(torch.randn(*poles.shape, 2) * 0.5**0.5)  # real, imaginary
        self.D = nn.Parameter(torch.randn(channels))

    def initial_state(self, batch: int, like: Tensor) -> Tensor:
        dtype = accumulation_dtype(like.dtype).to_complex()
        return like.new_zeros((batch, *self.log_A_real.shape), dtype=dtype)

    def transition(self, u: Tensor) -> Diagonal:
        decay = self._exponent(accumulation_dtype(u.dtype))[1].exp()
        b = u.unsqueeze(-1).to(decay.dtype).expand(*u.shape, decay.shape[-1])
        return Diagonal(decay.expand_as(b), b)

    def finish(self, u: Tensor, o: Tensor) -> Tensor:
        poles, exponent = self._exponent(o.real.dtype)
        C = torch.view_as_complex(self.C.to(o.real.dtype)) * torch.expm1(exponent) / poles
        return 2 * (o * C).sum(-1).real.to(u.dtype) + self.D * u

    def _exponent(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A, and ΔA."""
        poles = torch.complex(-self.log_A_real.to(dtype).exp(), self.A_imag.to(dtype))
        return poles, poles * self.log_step.to(dtype).exp().unsqueeze(-1)
