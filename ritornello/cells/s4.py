"""The systems of S4 and LSSL, discretised by the trapezoid rule."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.cells.lti import Move
from ritornello.typing import Tensor

__all__ = ["DenseSystem", "S4System", "Trapezoid", "bilinear"]


def bilinear(A: Tensor, B: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A) and B̄ = (I − Δ/2 A)⁻¹ Δ B for A (N, N), B (N,) and steps Δ (H,)."""
    half = step.view(-1, 1, 1) / 2 * A
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    right = torch.cat([eye + half, step.view(-1, 1, 1) * B.unsqueeze(-1)], -1)
    solved = torch.linalg.solve(eye - half, right)
    return solved[..., :-1], solved[..., -1]


class Trapezoid:
    """(I − Δ/2 A)⁻¹ Δ (A z + B x), what one step of the trapezoid rule adds to z, for A z = Λ ⊙ z − P ρ(z) with
    ρ(z) = weight · Re(Pᴴ z): O(n · rank) for each channel, by the Woodbury identity.

    What is added is small beside z, and so are its rounding errors: a product with Ā rounds all of z at every step.

    Args:
        poles, P, B: Λ (n,), P (n, rank) and B (n,), complex; those of all channels.
        step: Δ, (H,).
        weight: 2 where each number stands for itself and its conjugate.

    Source: Gu et al. 2021, arXiv:2111.00396, section 3.
    """

    def __init__(self, poles: Tensor, P: Tensor, B: Tensor, step: Tensor, weight: float):
        step = step.unsqueeze(-1)
        self.poles, self.P, self.B, self.weight = poles, P, B, weight
        inverse = 1 / (1 - step / 2 * poles)
        self.scaled = step * inverse
        spread = step.unsqueeze(-1) / 2 * inverse.unsqueeze(-1) * P
        read = self._read(spread.mT).mT
        eye = torch.eye(P.shape[1], dtype=read.dtype, device=read.device)
        self.correction = spread @ torch.linalg.inv_ex(eye + read).inverse.to(P.dtype)

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        """z (B, H, n) and x (B, H) → (B, H, n)."""
        rate = self.poles * z - self._read(z).to(z.dtype) @ self.P.mT + self.B * x.unsqueeze(-1)
        added = self.scaled * rate
        return added - torch.einsum("hnr,bhr->bhn", self.correction, self._read(added).to(z.dtype))

    def _read(self, z: Tensor) -> Tensor:
        """ρ: (..., n) → (..., rank)."""
        return self.weight * (z @ self.P.conj()).real


def _log_steps(channels: int, low: float, high: float) -> nn.Parameter:
    return nn.Parameter(torch.rand(channels) * math.log(high / low) + math.log(low))


class S4System(nn.Module):
    """A = Λ − P P*, on N / 2 complex numbers that stand for conjugate pairs; Λ, P and B are shared by all channels, the
    step Δ, C and D are each channel's own.

    The state is the real parts, then the imaginary parts.

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

    def move(self, dtype: torch.dtype) -> Move:
        """The step of the state in O(N) for each channel."""
        poles = torch.complex(-self.log_A_real.to(dtype).exp(), self.A_imag.to(dtype))
        P, B = (torch.view_as_complex(t.to(dtype)) for t in (self.P, self.B))
        rule = Trapezoid(poles, P.unsqueeze(-1), B, self.log_step.to(dtype).exp(), weight=2)

        def move(h: Tensor, x: Tensor) -> Tensor:
            added = rule(torch.complex(*h.chunk(2, -1)), x)
            return h + torch.cat([added.real, added.imag], -1)

        return move

    def output(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """C, for 2 Re(C z), and D."""
        return 2 * torch.cat([self.C[..., 0], -self.C[..., 1]], -1).to(dtype), self.D.to(dtype)

    def forward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        move, (C, D) = self.move(dtype), self.output(dtype)
        unit = torch.eye(C.shape[1], dtype=dtype, device=C.device).unsqueeze(1).expand(-1, C.shape[0], -1)
        A = move(unit, D.new_zeros(1, 1)).permute(1, 2, 0)  # where each unit vector goes
        B = move(torch.zeros_like(unit[:1]), D.new_ones(1, 1))[0]
        return A, B, C, D


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
        self.normal = _normal_form(A, B)
        self.log_step = _log_steps(channels, step_min, step_max)
        self.C = nn.Parameter(torch.randn(channels, A.shape[0]) * A.shape[0] ** -0.5)
        self.D = nn.Parameter(torch.randn(channels))

    def move(self, dtype: torch.dtype) -> Move:
        """The step of the state, in the basis in which A is diagonal plus low rank: no system is solved."""
        enter, leave = (t.to(self.C.device, dtype) for t in self.normal[:2])
        poles, P, B = (t.to(self.C.device, dtype.to_complex()) for t in self.normal[2:])
        rule = Trapezoid(poles, P, B, self.log_step.to(dtype).exp(), weight=1)

        def move(h: Tensor, x: Tensor) -> Tensor:
            added = rule(torch.complex(*(h @ enter).chunk(2, -1)), x)
            return h + torch.cat([added.real, added.imag], -1) @ leave

        return move

    def output(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """C and D."""
        return self.C.to(dtype), self.D.to(dtype)

    def forward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        A, B = (t.to(self.C.device, dtype) for t in self.fixed)
        return *bilinear(A, B, self.log_step.to(dtype).exp()), *self.output(dtype)


def _normal_form(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A as S U (Λ − P Pᴴ) Uᴴ S⁻¹, S diagonal and U unitary: of low rank for the operators of HiPPO.

    S makes the first row and column as large where both are there; then the symmetric part is max · I − Q Qᵀ, and what
    is left with max · I is normal.

    Returns:
        The maps into the basis, (N, 2 N) to real parts, then imaginary parts, and out of it, (2 N, N); Λ (N,),
        P (N, rank) and B (N,) in it.
    """
    row, column = A[0], A[:, 0]
    scale = torch.where((row != 0) & (column != 0), (column / row).abs().sqrt(), 1.0)
    balanced = A * scale / scale.unsqueeze(1)
    values, vectors = torch.linalg.eigh((balanced + balanced.mT) / 2)
    low = values < values[-1] - 1e-9 * balanced.abs().max()
    Q = vectors[:, low] * (values[-1] - values[low]).sqrt()
    turns, U = torch.linalg.eigh(-0.5j * (balanced - balanced.mT))
    enter, leave = U.conj() / scale.unsqueeze(1), U.mT * scale
    poles = torch.complex(values[-1].expand_as(turns), turns)
    into = torch.cat([enter.real, enter.imag], 1)
    return into, torch.cat([leave.real, -leave.imag]), poles, U.mH @ Q.to(U.dtype), B.to(U.dtype) @ enter
