"""ParaRNN's gated recurrent unit."""

from __future__ import annotations

import torch

from ritornello import ops
from ritornello.cells._para import ParaCell
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["ParaGRUCell"]


class ParaGRUCell(ParaCell):
    """z, r = σ(W x_t + a ⊙ h_{t−1} + b);  c = tanh(W_c x_t + a_c ⊙ h_{t−1} ⊙ r + b_c);
    h_t = (1 − z) ⊙ h_{t−1} + z ⊙ c: its Jacobian is diagonal.

    The gates stand in the order z, r, c; W is block-diagonal, [gate, head, out, in].

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: blocks of W; 1: dense.
        clip: the largest |a| that counts; None: any.

    Source: Danieli et al. 2025, arXiv:2510.21450, eq. 3.1a.
    """

    def initial_state(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, self.hidden_size, dtype=accumulation_dtype(like.dtype))

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        (u_z, u_r, u_c), (a_z, a_r, a_c) = u.to(h.dtype).unbind(1), self.clipped(self.weight_hh, h.dtype)
        z, r = torch.sigmoid(u_z + a_z * h), torch.sigmoid(u_r + a_r * h)
        return (1 - z) * h + z * torch.tanh(u_c + a_c * h * r)

    def read(self, u: Tensor, h: Tensor) -> Tensor:
        return h.to(u.dtype)

    def fused(self, u: Tensor, h: Tensor, cu_seqlens: Tensor | None = None):
        return ops.para_gru(u, self.clipped(self.weight_hh, h.dtype), h, cu_seqlens=cu_seqlens)
