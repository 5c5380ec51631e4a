"""ParaRNN's long short-term memory."""

from __future__ import annotations

import torch
from torch import nn

from ritornello import ops
from ritornello.cells._para import ParaCell
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["ParaLSTMCell"]


class ParaLSTMCell(ParaCell):
    """f = σ(u_f + a_f ⊙ h_{t−1} + p_f ⊙ c_{t−1}), g = tanh(u_g + a_g ⊙ h_{t−1}) with u = W x_t + b;
    c_t = f ⊙ c_{t−1} + (1 − f) ⊙ g;  o = σ(u_o + a_o ⊙ h_{t−1} + p_o ⊙ c_t);  h_t = o ⊙ tanh c_t: its Jacobian is
    made of 2×2 blocks.

    The gates stand in the order f, o, g, and those of `peephole`, p, in the order f, o; W is block-diagonal, [gate,
    head, out, in].

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: blocks of W; 1: dense.
        clip: the largest |a| and |p| that count; None: any.

    Source: Danieli et al. 2025, arXiv:2510.21450, eq. 3.1b; the order of the gates is that of the authors' code.
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1, clip: float | None = None):
        super().__init__(input_size, hidden_size, heads, clip)
        self.peephole = nn.Parameter(self.diagonal(2))

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        zero = like.new_zeros(batch, self.hidden_size, dtype=accumulation_dtype(like.dtype))
        return zero, zero.clone()

    def step(self, u: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, c = h
        p_f, p_o = self.clipped(self.peephole, c.dtype)
        f, o, g = (u.to(c.dtype) + self.clipped(self.weight_hh, c.dtype) * hidden.unsqueeze(1)).unbind(1)
        f = torch.sigmoid(f + p_f * c)
        c = f * c + (1 - f) * torch.tanh(g)
        return torch.sigmoid(o + p_o * c) * torch.tanh(c), c

    def read(self, u: Tensor, h: tuple[Tensor, Tensor]) -> Tensor:
        return h[0].to(u.dtype)

    def fused(self, u: Tensor, h: tuple[Tensor, Tensor], cu_seqlens: Tensor | None = None):
        dtype = h[1].dtype
        a, p = self.clipped(self.weight_hh, dtype), self.clipped(self.peephole, dtype)
        hidden, last = ops.para_lstm(u, a, p, h, cu_seqlens=cu_seqlens)
        return (hidden, None), last
