"""The simplified state space model."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.cell import AffineCell
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["S5Cell"]

SLOWEST = -1e-4  # the largest real part of a pole


class S5Cell(AffineCell):
    """h_t = e^{ΔΛ} ⊙ h_{t−1} + (e^{ΔΛ} − 1) / Λ ⊙ (B x_t), y_t = 2 Re(C h_t) + D ⊙ x_t: one complex state for all
    channels, each of its poles with a step Δ of its own; zero-order hold.

    The rows of `B` are the real parts, then the imaginary parts; the columns of `C` likewise.

    Args:
        poles: Λ at the start, complex (P,), one of each conjugate pair.
        B, C: at the start, complex (P, channels) and (channels, P).
        step_min, step_max: Δ at the start, log-uniform per pole.

    Source: Smith et al. 2022, arXiv:2208.04933, section 3; the bound on the poles' real part as in the authors' code.
    """

    def __init__(self, poles: Tensor, B: Tensor, C: Tensor, step_min: float = 1e-3, step_max: float = 1e-1):
        super().__init__()
        size, channels = B.shape
        spread = math.log(step_max / step_min)
        self.log_step = nn.Parameter(torch.rand(size) * spread + math.log(step_min))
        self.Lambda_real = nn.Parameter(poles.real.float().clone())
        self.Lambda_imag = nn.Parameter(poles.imag.float().clone())
        self.B = nn.Parameter(torch.cat([B.real, B.imag]).float())
        self.C = nn.Parameter(torch.cat([C.real, C.imag], 1).float())
        self.D = nn.Parameter(torch.randn(channels))

    def initial_state(self, batch: int, like: Tensor) -> Tensor:
        dtype = accumulation_dtype(like.dtype).to_complex()
        return like.new_zeros((batch, *self.log_step.shape), dtype=dtype)

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, nn.functional.linear(x, self.B.to(x.dtype))

    def transition(self, u: tuple[Tensor, Tensor]) -> Diagonal:
        dtype = accumulation_dtype(u[1].dtype)
        poles = torch.complex(self.Lambda_real.to(dtype).clamp(max=SLOWEST), self.Lambda_imag.to(dtype))
        exponent = poles * self.log_step.to(dtype).exp()
        driven = torch.complex(*u[1].to(dtype).chunk(2, -1)) * (torch.expm1(exponent) / poles)
        return Diagonal(exponent.exp().expand_as(driven), driven)

    def finish(self, u: tuple[Tensor, Tensor], o: Tensor) -> Tensor:
        x, _ = u
        read = torch.cat([o.real, -o.imag], -1).to(x.dtype)
        return 2 * nn.functional.linear(read, self.C.to(x.dtype)) + self.D * x
