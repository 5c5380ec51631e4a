"""What the cells of ParaRNN share: gates W x + a ⊙ h + b, whose recurrence is element by element."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.cells._recurrent import check_heads, headwise
from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["ParaCell"]


class ParaCell(Cell):
    """Three gates W x_t + a ⊙ h_{t−1} + b, W block-diagonal as [gate, head, out, in].

    The spectral norm of diag(a), its largest element, is kept to `clip`; so no Jacobian of the recurrence grows far
    beyond 1, and Newton's method over time converges.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: blocks of W; 1: dense.
        clip: the largest |a| that counts; None: any.

    Source: Danieli et al. 2025, arXiv:2510.21450; initialisation as in the authors' code (a Gaussian of variance
    4 / (5 hidden_size), W Xavier-uniform, the first gate's bias from 0 to −1, the others' 0).
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1, clip: float | None = None):
        super().__init__()
        check_heads(self, heads, input_size=input_size, hidden_size=hidden_size)
        if clip is not None and not clip > 0:
            raise InputError(f"`clip` of {type(self).__name__} is {clip}; wanted a positive number, or None.")
        self.hidden_size, self.clip = hidden_size, clip
        size, inputs = hidden_size // heads, input_size // heads
        bound = (6 / (inputs + hidden_size)) ** 0.5
        self.weight_ih = nn.Parameter(torch.empty(3, heads, size, inputs).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(self.diagonal(3))
        self.bias = nn.Parameter(torch.zeros(3, hidden_size))
        with torch.no_grad():
            self.bias[0] = -torch.linspace(0, 1, hidden_size)

    def diagonal(self, count: int) -> Tensor:
        """The first values of `count` vectors that multiply the state."""
        return torch.randn(count, self.hidden_size) * 2 / (5 * self.hidden_size) ** 0.5

    def drive(self, x: Tensor) -> Tensor:
        sums = headwise(self.weight_ih, x)
        return sums + self.bias.to(sums.dtype)

    def clipped(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The vectors that multiply the state, as they count."""
        weight = weight.to(dtype)
        return weight if self.clip is None else weight.clamp(-self.clip, self.clip)
