"""The bilinear recurrence: the input chooses the matrix that moves the state."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.cells._recurrent import check_heads
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["BilinearCell"]


class BilinearCell(Cell):
    """h'_t = A(x_t) h_{t−1}, A(x)_{ij} = B_{ij} + Σ_k W_{ijk} x_k;  h_t = h'_t / ‖h'_t‖: nothing is added to h, so that
    only its direction counts, and h' is a linear map of the state before.

    A is block-diagonal, and every block's share of h has norm 1; it starts with all its elements equal. B is what the
    paper has where x holds a constant: it starts as the identity, so that the state is kept where x is small.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: blocks of A; 1: dense, with hidden_size² · input_size weights.

    Source: Ebrahimi and Memisevic 2025, "Revisiting Bi-Linear State Transitions in Recurrent Neural Networks",
    arXiv:2505.21749, section 3: the full and the block-diagonal form, with the normalisation that the scale allows.
    """

    EPS = 1e-12

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1):
        super().__init__()
        check_heads(self, heads, hidden_size=hidden_size)
        self.blocks = (heads, hidden_size // heads)
        size = self.blocks[1]
        self.weight = nn.Parameter(torch.randn(heads * size * size, input_size) * 0.5 * (size * input_size) ** -0.5)
        self.bias = nn.Parameter(torch.eye(size).repeat(heads, 1, 1).flatten())

    def initial_state(self, batch: int, like: Tensor) -> Tensor:
        heads, size = self.blocks
        return like.new_full((batch, heads * size), size**-0.5, dtype=accumulation_dtype(like.dtype))

    def drive(self, x: Tensor) -> Tensor:
        heads, size = self.blocks
        return nn.functional.linear(x, self.weight, self.bias).unflatten(-1, (heads, size, size))

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        moved = (u.to(h.dtype) @ h.unflatten(-1, self.blocks).unsqueeze(-1)).squeeze(-1)
        return (moved * torch.rsqrt(moved.square().sum(-1, keepdim=True) + self.EPS)).flatten(-2)

    def read(self, u: Tensor, h: Tensor) -> Tensor:
        return h.to(u.dtype)
