"""The long short-term memory."""

from __future__ import annotations

import torch

from ritornello import ops
from ritornello.cells._recurrent import GatedCell
from ritornello.typing import Tensor

__all__ = ["LSTMCell"]


class LSTMCell(GatedCell):
    """i, f, o = σ(·), g = tanh(·) of W x_t + R h_{t−1} + b;  c_t = f ⊙ c_{t−1} + i ⊙ g;  h_t = o ⊙ tanh c_t.

    The rows of `weight_ih`, `weight_hh` and `bias` stand in the order i, f, g, o of ``torch.nn.LSTM``, whose two biases
    are one here: their sum.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; heads as in FlashRNN, Pöppel et
    al. 2024, arXiv:2412.07752.
    """

    gates = 4
    states = 2

    def step(self, u: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, c = h
        i, f, g, o = (u.to(c.dtype) + self.recurrent(hidden)).unbind(1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def fused(self, u: Tensor, h: tuple[Tensor, Tensor], cu_seqlens: Tensor | None = None):
        hidden, last = ops.lstm(u, self.weight_hh, h, cu_seqlens=cu_seqlens)
        return (hidden, None), last
