"""The pooling of the quasi-recurrent network."""

from __future__ import annotations

import torch

from ritornello.cell import AffineCell
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulated

__all__ = ["QRNNCell"]


class QRNNCell(AffineCell):
    """c_t = f_t ⊙ c_{t−1} + i_t ⊙ z_t, h_t = o_t ⊙ c_t, all gates given: fo-pooling with i = 1 − f.

    It is given the pre-activations (B, T, gates, size): of z and f, then of o, then of i, as far as there are.

    Args:
        size: of c and h.

    Source: Bradbury et al. 2016, arXiv:1611.01576, eq. 3–5.
    """

    def __init__(self, size: int):
        super().__init__()
        self.state_shape = (size,)

    def transition(self, u: Tensor) -> Diagonal:
        u = accumulated(u)
        z, f = u[:, :, 0], u[:, :, 1]
        enter = torch.sigmoid(u[:, :, 3]) if u.shape[2] == 4 else torch.sigmoid(-f)
        return Diagonal(torch.sigmoid(f), enter * torch.tanh(z))

    def finish(self, u: Tensor, o: Tensor) -> Tensor:
        o = o.to(u.dtype)
        return o if u.shape[2] == 2 else torch.sigmoid(u[:, :, 2]) * o
