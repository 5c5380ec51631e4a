"""The linear recurrent unit: a complex diagonal that does not depend on the input."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.cell import AffineCell
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["LRUCell"]


class LRUCell(AffineCell):
    """h_t = a ⊙ h_{t−1} + e^{γ_log} ⊙ (B x_t), y_t = Re(C h_t) + D ⊙ x_t, a = exp(−e^{ν_log} + i e^{θ_log}); h complex.

    `B.weight` holds the rows of Re B, then of Im B; `C.weight` the columns of Re C, then of Im C. h is complex64 or
    wider.

    Args:
        input_size, state_size: of x and y (B, T, input_size), and of h.
        r_min, r_max: a starts uniform by area in the ring r_min ≤ |a| ≤ r_max …
        max_phase: … and in the angles 0 … max_phase.

    Source: Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences", arXiv:2303.06349,
    section 3 and appendix A, with the initialisation of B, C, D given there.
    """

    def __init__(
        self, input_size: int, state_size: int, r_min: float = 0.0, r_max: float = 1.0, max_phase: float = 2 * math.pi
    ):
        super().__init__()
        self.state_size = state_size
        # Not the ends: at |a| = 0 the logarithm of ν is infinite, at |a| = 1 that of γ.
        squared = torch.empty(state_size).uniform_(r_min**2, r_max**2).clamp(1e-6, 1 - 1e-6)
        phase = torch.empty(state_size).uniform_(0, max_phase).clamp(min=1e-6)
        self.nu_log = nn.Parameter((-0.5 * squared.log()).log())
        self.theta_log = nn.Parameter(phase.log())
        self.gamma_log = nn.Parameter(0.5 * (1 - squared).log())
        self.B = nn.Linear(input_size, 2 * state_size, bias=False)
        self.C = nn.Linear(2 * state_size, input_size, bias=False)
        self.D = nn.Parameter(torch.randn(input_size))
        nn.init.normal_(self.B.weight, std=(2 * input_size) ** -0.5)
        nn.init.normal_(self.C.weight, std=state_size**-0.5)

    def initial_state(self, batch: int, like: Tensor) -> Tensor:
        dtype = accumulation_dtype(like.dtype).to_complex()
        return like.new_zeros((batch, self.state_size), dtype=dtype)

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = accumulation_dtype(x.dtype)
        b = self.B(x).to(wide).unflatten(-1, (2, -1)) * self.gamma_log.to(wide).exp()
        return x, torch.complex(*b.unbind(-2))

    def transition(self, u: tuple[Tensor, Tensor]) -> Diagonal:
        _, b = u
        radius, angle = (-self.nu_log.to(b.real.dtype).exp()).exp(), self.theta_log.to(b.real.dtype).exp()
        return Diagonal(torch.polar(radius, angle).expand_as(b), b)

    def finish(self, u: tuple[Tensor, Tensor], o: Tensor) -> Tensor:
        x, _ = u
        return self.C(torch.cat([o.real, -o.imag], -1).to(x.dtype)) + self.D * x
