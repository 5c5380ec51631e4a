"""The system of S4: diagonal plus low rank, discretised by the trapezoid rule."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.typing import Tensor

__all__ = ["DenseSystem", "S4System", "bilinear"]


def bilinear(A: Tensor, B: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A) and B̄ = (I − Δ/2 A)⁻¹ Δ B for A (N, N), B (N,) and steps Δ (H,)."""
    half = step.view(-1, 1, 1) / 2 * A
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    right = torch.cat([eye + half, step.view(-1, 1, 1) * B.unsqueeze(-1)], -1)
    solved = torch.linalg.solve(eye - half, right)
    return solved[..., :-1], solved[..., -1]


def _log_steps(channels: int, low: float, high: float) -> nn.Parameter:
    return nn.Parameter(torch.rand(channels) * math.log(high / low) + math.log(low))


class S4System(nn.Module):
    """A = Λ − P P*, on N / 2 complex numbers that stand for conjugate pairs; Λ, P and B are shared by all channels, the
    step Δ, C and D are each channel's own.

    As a map of the 2 · N / 2 real and imaginary parts, z ↦ Λ z − P · 2 Re(P* z) is diag-by-rotations − 2 p pᵀ.

    Args:
        poles, P, B: Λ, P and B at the start, complex (N / 2,).
        channels: H.
        step_min, step_max: Δ at the start, log-uniform.

    Source: Gu et al. 2021, arXiv:2111.00396, sections 3 and 4.
    """

    def __init__(self, poles: Tensor, P: Tensor, B: Tensor, channels: int, step_min: float, step_max: float):
        super().__init__()
        self.log_step = _log_steps(channels, step_min, step_max)
        self.log_A_real = nn.Parameter((-poles.real).log().float())
        self.A_imag = nn.Parameter(poles.imag.float().clone())
        self.P = nn.Parameter(torch.view_as_real(P).float().clone())
        self.B = nn.Parameter(torch.view_as_real(B).float().clone())
        self.C = nn.Parameter(torch.randn(channels, poles.shape[0], 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(channels))

    def forward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        real, imaginary = -self.log_A_real.to(dtype).exp().diag(), self.A_imag.to(dtype).diag()
        rotations = torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)])
        p, b = (t.to(dtype).mT.flatten() for t in (self.P, self.B))  # real parts, then imaginary parts
        A, B = bilinear(rotations - 2 * torch.outer(p, p), b, self.log_step.to(dtype).exp())
        C = 2 * torch.cat([self.C[..., 0], -self.C[..., 1]], -1).to(dtype)  # 2 Re(C z)
        return A, B, C, self.D.to(dtype)


class DenseSystem(nn.Module):
    """A and B given and not learned; the step Δ, C and D are each channel's own.

    Args:
        A, B: (N, N) and (N,), float64.
        channels: H.
        step_min, step_max: Δ at the start, log-uniform.

    Source: Gu et al. 2021, arXiv:2110.13985, section 4.
    """

    def __init__(self, A: Tensor, B: Tensor, channels: int, step_min: float, step_max: float):
        super().__init__()
        # No buffers: half precision would round what must stay exact.
        self.fixed = A, B
        self.log_step = _log_steps(channels, step_min, step_max)
        self.C = nn.Parameter(torch.randn(channels, A.shape[0]) * A.shape[0] ** -0.5)
        self.D = nn.Parameter(torch.randn(channels))

    def forward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        A, B = (t.to(self.C.device, dtype) for t in self.fixed)
        return *bilinear(A, B, self.log_step.to(dtype).exp()), self.C.to(dtype), self.D.to(dtype)
