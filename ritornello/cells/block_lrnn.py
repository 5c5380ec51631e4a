"""The linear recurrence with a block-diagonal transition that depends on the input."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.cell import AffineCell
from ritornello.errors import InputError
from ritornello.transition import Block
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["BlockLRNNCell"]


class BlockLRNNCell(AffineCell):
    """h_t = A(x_t) h_{t−1} + v(x_t), A of n × n blocks: each is M(x_t) with the mean of every column taken off, divided
    by the largest p-norm of its columns; M and v are perceptrons with one hidden layer. Where a sequence starts, h_0
    is learned.

    It is given x (B, T, size), or a pair of that and (B, T) bool: which steps start a sequence (none, for x alone).

    Args:
        size: of x and h.
        block: n.
        p: of the norm.

    Source: Fan et al. 2023, arXiv:2309.07412, section 4; the mean, the perceptrons and h_0 as in the authors' code.
    """

    def __init__(self, size: int, block: int = 4, p: float = 1.2):
        super().__init__()
        if block < 2 or size % block:
            raise InputError(f"`block` of BlockLRNNCell is {block}; wanted a divisor of `size` = {size}, at least 2.")
        self.block, self.p = block, p
        self.state_shape = (block, size // block)
        entries = size * block
        self.block_proj = nn.Sequential(nn.Linear(size, entries), nn.ReLU(), nn.Linear(entries, entries))
        self.value_proj = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.start = nn.Parameter(torch.randn(block, size // block))

    def drive(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, starts = x if isinstance(x, tuple) else (x, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device))
        return self.block_proj(x), self.value_proj(x), starts

    def transition(self, u: tuple[Tensor, Tensor, Tensor]) -> Block:
        blocks, values, starts = u
        n, wide = self.block, accumulation_dtype(values.dtype)
        a = blocks.to(wide).unflatten(-1, (n, n, -1))
        a = a - a.mean(-3, keepdim=True)
        norms = torch.linalg.vector_norm(a, self.p, -3, keepdim=True).amax(-2, keepdim=True)
        a = a / norms.clamp(min=1e-6)
        b = values.to(wide).unflatten(-1, (n, -1))
        first = torch.einsum("btijd,jd->btid", a, self.start.to(wide))
        return Block(a, torch.where(starts[..., None, None], b + first, b))

    def finish(self, u: tuple[Tensor, Tensor, Tensor], o: Tensor) -> Tensor:
        return o.flatten(-2).to(u[1].dtype)
