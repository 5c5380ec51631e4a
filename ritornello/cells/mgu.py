"""The minimal gated unit."""

from __future__ import annotations

import torch

from ritornello import ops
from ritornello.cells._recurrent import GatedCell, headwise
from ritornello.typing import Tensor

__all__ = ["MGUCell"]


class MGUCell(GatedCell):
    """f = σ(W_f x_t + R_f h_{t−1} + b_f);  n = tanh(W_n x_t + R_n (f ⊙ h_{t−1}) + b_n);
    h_t = (1 − f) ⊙ h_{t−1} + f ⊙ n: a GRU whose two gates are one.

    The rows of the weights stand in the order f, n.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.

    Source: Zhou et al. 2016, "Minimal Gated Unit for Recurrent Neural Networks", arXiv:1603.09420, table 2.
    """

    gates = 2

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        u_f, u_n = u.to(h.dtype).unbind(1)
        f = torch.sigmoid(u_f + headwise(self.weight_hh[:1], h).squeeze(1))
        n = torch.tanh(u_n + headwise(self.weight_hh[1:], f * h).squeeze(1))
        return (1 - f) * h + f * n

    def fused(self, u: Tensor, h: Tensor, cu_seqlens: Tensor | None = None):
        return ops.mgu(u, self.weight_hh, h, cu_seqlens=cu_seqlens)
