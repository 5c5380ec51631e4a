"""The simple recurrent unit."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["SRUCell"]


class SRUCell(Cell):
    """f_t = σ(W_f x_t + v_f ⊙ c_{t−1} + b_f), c_t = f_t ⊙ c_{t−1} + (1 − f_t) ⊙ W x_t,
    r_t = σ(W_r x_t + v_r ⊙ c_{t−1} + b_r), h_t = r_t ⊙ c_t + (1 − r_t) ⊙ α x_t.

    The gates see the state channel by channel: not affine, but with a diagonal Jacobian. The state is (c, r).

    Args:
        size: of x, c and h.
        scale: α; √(1 + 2e^b) with b = `bias` where None, with which h starts with the variance of x.
        bias: the initial value of b_r.

    Source: Lei et al. 2018, arXiv:1709.02755, eq. 1–4 and section 3.2 (α and the initialisation).
    """

    def __init__(self, size: int, scale: float | None = None, bias: float = 0.0):
        super().__init__()
        self.size = size
        self.scale = (1 + 2 * math.exp(bias)) ** 0.5 if scale is None else scale
        bound = (3 / size) ** 0.5
        self.weight = nn.Parameter(torch.empty(3 * size, size).uniform_(-bound, bound))  # of c, f, r
        self.state_weight = nn.Parameter(torch.empty(2, size).uniform_(-bound, bound))  # v_f, v_r
        self.bias = nn.Parameter(torch.stack([torch.zeros(size), torch.full((size,), bias)]))  # b_f, b_r

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        zero = like.new_zeros(batch, self.size, dtype=accumulation_dtype(like.dtype))
        return zero, zero.clone()

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, nn.functional.linear(x, self.weight).unflatten(-1, (3, self.size))

    def step(self, u: tuple[Tensor, Tensor], h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        c, _ = h
        candidate, f, r = u[1].to(c.dtype).unbind(1)
        gates = torch.stack([f, r], 1) + self.state_weight.to(c.dtype) * c.unsqueeze(1) + self.bias.to(c.dtype)
        f, r = torch.sigmoid(gates).unbind(1)
        return f * c + (1 - f) * candidate, r

    def read(self, u: tuple[Tensor, Tensor], h: tuple[Tensor, Tensor]) -> Tensor:
        c, r = h
        x = u[0].to(c.dtype)
        return (r * c + (1 - r) * self.scale * x).to(u[0].dtype)
