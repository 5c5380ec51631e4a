"""The Legendre memory unit."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["LMUCell"]


class LMUCell(Cell):
    """u_t = e_x · x_t + e_h · h_{t−1} + e_m · m_{t−1}; m_t = Ā m_{t−1} + B̄ u_t;
    h_t = tanh(W_x x_t + W_h h_{t−1} + W_m m_t).

    The state is (h, m): m holds the recent past of u by a linear system that is not learned.

    Args:
        input_size, hidden_size: of x and h.
        A, B: Ā (N, N) and B̄ (N,), float64.

    Source: Voelker et al. 2019, "Legendre Memory Units", NeurIPS: encoders start LeCun-uniform and e_m zero, kernels
    Xavier-normal.
    """

    def __init__(self, input_size: int, hidden_size: int, A: Tensor, B: Tensor):
        super().__init__()
        # No buffers: half precision would round what must stay exact.
        self.A, self.B = A, B
        self.hidden_size, order = hidden_size, B.shape[0]
        self.input_encoder = nn.Parameter(torch.empty(input_size).uniform_(-1, 1) * (3 / input_size) ** 0.5)
        self.hidden_encoder = nn.Parameter(torch.empty(hidden_size).uniform_(-1, 1) * (3 / hidden_size) ** 0.5)
        self.memory_encoder = nn.Parameter(torch.zeros(order))
        self.input_kernel = nn.Parameter(torch.empty(hidden_size, input_size))
        self.hidden_kernel = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.memory_kernel = nn.Parameter(torch.empty(hidden_size, order))
        for kernel in (self.input_kernel, self.hidden_kernel, self.memory_kernel):
            nn.init.xavier_normal_(kernel)

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(like.dtype)
        return like.new_zeros(batch, self.hidden_size, dtype=dtype), like.new_zeros(batch, len(self.B), dtype=dtype)

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([self.input_kernel, self.input_encoder.unsqueeze(0)])
        driven = nn.functional.linear(x, joined)
        return driven[..., :-1], driven[..., -1]

    def step(self, u: tuple[Tensor, Tensor], h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, m = h
        wide = hidden.dtype
        encoded = u[1].to(wide) + hidden @ self.hidden_encoder.to(wide) + m @ self.memory_encoder.to(wide)
        m = m @ self.A.mT.to(m) + encoded.unsqueeze(-1) * self.B.to(m)
        recurrent = hidden @ self.hidden_kernel.mT.to(wide) + m @ self.memory_kernel.mT.to(wide)
        return torch.tanh(u[0].to(wide) + recurrent), m

    def read(self, u: tuple[Tensor, Tensor], h: tuple[Tensor, Tensor]) -> Tensor:
        return h[0].to(u[0].dtype)
