"""The update gate RNN."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.cells._recurrent import GatedCell
from ritornello.typing import Tensor

__all__ = ["UGRNNCell"]


class UGRNNCell(GatedCell):
    """c = tanh(·), g = σ(·) of W x_t + R h_{t−1} + b;  h_t = g ⊙ h_{t−1} + (1 − g) ⊙ c.

    The rows of the weights stand in the order c, g. The paper's constant in the gate's sum is where its bias starts.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.
        gate_bias: the first value of the gate's bias; the larger it is, the longer the first memory.

    Source: Collins et al. 2017, "Capacity and Trainability in Recurrent Neural Networks", arXiv:1611.09913, section 1.
    """

    gates = 2

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1, gate_bias: float = 1.0):
        super().__init__(input_size, hidden_size, heads)
        nn.init.constant_(self.bias[hidden_size:], gate_bias)

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        c, g = (u.to(h.dtype) + self.recurrent(h)).unbind(1)
        g = torch.sigmoid(g)
        return g * h + (1 - g) * torch.tanh(c)
