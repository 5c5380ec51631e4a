"""The long short-term memory."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello import ops
from ritornello.cell import Cell
from ritornello.errors import InputError
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["LSTMCell"]


class LSTMCell(Cell):
    """i, f, o = σ(·), g = tanh(·) of W x_t + R h_{t−1} + b;  c_t = f ⊙ c_{t−1} + i ⊙ g;  h_t = o ⊙ tanh c_t.

    The rows of `weight_ih`, `weight_hh` and `bias` stand in the order i, f, g, o of ``torch.nn.LSTM``, whose two biases
    are one here: their sum.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; heads as in FlashRNN, Pöppel et
    al. 2024, arXiv:2412.07752.
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1):
        super().__init__()
        if hidden_size % heads:
            raise InputError(f"`heads` of LSTMCell is {heads}, which does not divide `hidden_size` = {hidden_size}.")
        self.hidden_size = hidden_size
        size = hidden_size // heads
        bound = 1 / math.sqrt(hidden_size)
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4, heads, size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size).uniform_(-bound, bound))

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        zero = like.new_zeros(batch, self.hidden_size, dtype=accumulation_dtype(like.dtype))
        return zero, zero.clone()

    def drive(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_ih, self.bias).unflatten(-1, (4, self.hidden_size))

    def step(self, u: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, c = h
        wide = hidden.dtype
        heads = hidden.unflatten(-1, self.weight_hh.shape[1:3])
        recurrent = torch.einsum("ghoi,bhi->bgho", self.weight_hh.to(wide), heads).flatten(-2)
        i, f, g, o = (u.to(wide) + recurrent).unbind(1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def read(self, u: Tensor, h: tuple[Tensor, Tensor]) -> Tensor:
        return h[0].to(u.dtype)

    def fused(self, u: Tensor, h: tuple[Tensor, Tensor], cu_seqlens: Tensor | None = None):
        hidden, last = ops.lstm(u, self.weight_hh, h, cu_seqlens=cu_seqlens)
        return (hidden, None), last
