"""The scalar LSTM of xLSTM."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ritornello import ops
from ritornello.cell import Cell
from ritornello.cells._recurrent import check_heads, headwise
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["SLSTMCell"]

State = tuple[Tensor, Tensor, Tensor, Tensor]


class SLSTMCell(Cell):
    """i, f, z, o = W x_t + R h_{t−1} + b;  m_t = max(log σ(f) + m_{t−1}, i), at the first step i;
    c_t = e^{log σ(f) + m_{t−1} − m_t} c_{t−1} + e^{i − m_t} tanh z;  n_t the same with 1 for tanh z;
    h_t = σ(o) ⊙ c_t / n_t.

    W and R are block-diagonal, [gate, head, out, in] in the order i, f, z, o. The state is (h, c, n, m), where c and n
    mean c·eᵐ and n·eᵐ: the stabiliser m only keeps the numbers small.

    It is given x (B, T, input_size), or a pair of such: what i and f see, and what z and o see.

    Args:
        input_size, hidden_size: of x and h (B, T, hidden_size).
        heads: blocks of both matrices; 1: dense.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 8 to 17; the log-sigmoid forget gate and the initialisation (R = 0;
    the forget bias falls from 5 to −7 within a head, as 5 − 12 s^0.3) as in the authors' code.
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1):
        super().__init__()
        check_heads(self, heads, input_size=input_size, hidden_size=hidden_size)
        self.hidden_size = hidden_size
        size, inputs = hidden_size // heads, input_size // heads
        self.weight_ih = nn.Parameter(torch.randn(4, heads, size, inputs) * (2 / (5 * input_size)) ** 0.5)
        self.weight_hh = nn.Parameter(torch.zeros(4, heads, size, size))
        bias = torch.zeros(4, heads, size)
        bias[1] = 5 - 12 * torch.linspace(0, 1, size) ** 0.3
        self.bias = nn.Parameter(bias.flatten(1))

    def initial_state(self, batch: int, like: Tensor) -> State:
        zero = like.new_zeros(batch, self.hidden_size, dtype=accumulation_dtype(like.dtype))
        return zero, zero.clone(), zero.clone(), zero.clone()

    def drive(self, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        first, second = x if isinstance(x, tuple) else (x, x)
        sums = torch.cat([headwise(self.weight_ih[:2], first), headwise(self.weight_ih[2:], second)], -2)
        return sums + self.bias.to(sums.dtype)

    def step(self, u: Tensor, h: State) -> State:
        hidden, c, n, m = h
        i, f, z, o = (u.to(c.dtype) + headwise(self.weight_hh, hidden)).unbind(1)
        kept = F.logsigmoid(f) + m
        m = torch.where(n == 0, i, torch.maximum(kept, i))
        # Above 0 only where n is 0, which must not become inf · 0.
        keep, add = (kept - m).clamp(max=0).exp(), (i - m).exp()
        c = keep * c + add * torch.tanh(z)
        n = keep * n + add
        return torch.sigmoid(o) * c / n, c, n, m

    def read(self, u: Tensor, h: State) -> Tensor:
        return h[0].to(u.dtype)

    def fused(self, u: Tensor, h: State, cu_seqlens: Tensor | None = None):
        hidden, last = ops.slstm(u, self.weight_hh, h, cu_seqlens=cu_seqlens)
        return (hidden, None, None, None), last
