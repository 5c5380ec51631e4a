"""The independently recurrent network."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.cells._recurrent import activation_of
from ritornello.typing import Tensor

__all__ = ["IndRNNCell"]


class IndRNNCell(Cell):
    """h_t = φ(W x_t + a ⊙ h_{t−1} + b): every channel sees its own past only.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        activation: φ, ``"relu"`` or ``"tanh"``.

    Source: Li et al. 2018, arXiv:1803.04831, eq. 2; a starts uniform in [0, 1].
    """

    def __init__(self, input_size: int, hidden_size: int, activation: str = "relu"):
        super().__init__()
        self.state_shape = (hidden_size,)
        self.activation, self.phi = activation, activation_of(self, activation)
        bound = 1 / math.sqrt(hidden_size)
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.rand(hidden_size))
        self.bias = nn.Parameter(torch.empty(hidden_size).uniform_(-bound, bound))

    def drive(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_ih, self.bias)

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        return self.phi(u.to(h.dtype) + self.weight_hh.to(h.dtype) * h)

    def read(self, u: Tensor, h: Tensor) -> Tensor:
        return h.to(u.dtype)
