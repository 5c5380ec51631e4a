"""The gated recurrent unit."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello import ops
from ritornello.cells._recurrent import GatedCell
from ritornello.typing import Tensor

__all__ = ["GRUCell"]


class GRUCell(GatedCell):
    """r, z = σ(·) of W x_t + R h_{t−1} + b;  n = tanh(W_n x_t + b_n + r ⊙ (R_n h_{t−1} + bias_hn));
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}.

    The rows of `weight_ih`, `weight_hh` and `bias` stand in the order r, z, n of ``torch.nn.GRU``, whose two biases are
    one here, their sum, but for the share of n that the reset gate multiplies: `bias_hn`.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.

    Source: Cho et al. 2014, arXiv:1406.1078, with the reset after the product as in ``torch.nn.GRU``; heads as in
    FlashRNN, Pöppel et al. 2024, arXiv:2412.07752.
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1):
        super().__init__(input_size, hidden_size, heads)
        bound = 1 / math.sqrt(hidden_size)
        self.bias_hn = nn.Parameter(torch.empty(hidden_size).uniform_(-bound, bound))

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        wide = h.dtype
        (u_r, u_z, u_n), (r_r, r_z, r_n) = u.to(wide).unbind(1), self.recurrent(h).unbind(1)
        r, z = torch.sigmoid(u_r + r_r), torch.sigmoid(u_z + r_z)
        n = torch.tanh(u_n + r * (r_n + self.bias_hn.to(wide)))
        return (1 - z) * n + z * h

    def fused(self, u: Tensor, h: Tensor, cu_seqlens: Tensor | None = None):
        return ops.gru(u, self.weight_hh, self.bias_hn, h, cu_seqlens=cu_seqlens)
