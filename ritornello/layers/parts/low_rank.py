"""Projections of low rank."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ritornello.typing import Tensor

__all__ = ["LowRankProjection"]


class LowRankProjection(nn.Module):
    """y = W_up act(W_down x) + b.

    Args:
        width, size: of x and y.
        rank: the rows of W_down.
        activation: between the two; none where None.
        bias: whether there is b.
    """

    def __init__(
        self,
        width: int,
        size: int,
        rank: int,
        activation: Callable[[Tensor], Tensor] | None = None,
        bias: bool = False,
    ):
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, size, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(x)
        return self.up(hidden if self.activation is None else self.activation(hidden))
