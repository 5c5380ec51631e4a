"""What the classical cells share: products within heads, and gates that see the input and the last output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.errors import InputError
from ritornello.typing import Tensor, Tree, accumulation_dtype

__all__ = ["GatedCell", "activation_of", "check_heads", "headwise"]

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def headwise(weight: Tensor, x: Tensor) -> Tensor:
    """W x for every gate, each head for itself: weight (G, H, o, i) as [gate, head, out, in] and x (..., H·i) give
    (..., G, H·o), in the dtype of x."""
    weight = weight.to(x.dtype)
    if weight.shape[1] == 1:  # one product, whose result lies in memory as it is read: a step at a time
        return nn.functional.linear(x, weight.flatten(0, 2)).unflatten(-1, (weight.shape[0], weight.shape[2]))
    heads = x.unflatten(-1, (weight.shape[1], weight.shape[3]))
    return torch.einsum("ghoi,...hi->...gho", weight, heads).flatten(-2)


def check_heads(cell: Cell, heads: int, **sizes: int) -> None:
    """Refuse a number of heads that does not divide the sizes."""
    for name, size in sizes.items():
        if heads < 1 or size % heads:
            raise InputError(f"`heads` of {type(cell).__name__} is {heads}, which does not divide `{name}` = {size}.")


def activation_of(cell: Cell, name: str) -> Callable[[Tensor], Tensor]:
    """The activation of a simple recurrent cell, by its name."""
    if name not in ACTIVATIONS:
        raise InputError(f"`activation` of {type(cell).__name__} is {name!r}; it takes 'tanh' or 'relu'.")
    return ACTIVATIONS[name]


class GatedCell(Cell):
    """The sums W x_t + R h_{t−1} + b of G gates, and a state of as many vectors as `states` says, zero at the start.

    The output is the first vector of the state. A final class sets `gates` and writes `step`, in which
    ``u.to(h.dtype) + self.recurrent(h)`` (B, G, D) are the sums.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.
    """

    gates: ClassVar[int]
    states: int = 1

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1, gates: int | None = None):
        super().__init__()
        check_heads(self, heads, hidden_size=hidden_size)
        self.hidden_size = hidden_size
        count = self.gates if gates is None else gates
        size = hidden_size // heads
        bound = 1 / math.sqrt(hidden_size)
        self.weight_ih = nn.Parameter(torch.empty(count * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(count, heads, size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count * hidden_size).uniform_(-bound, bound))

    def initial_state(self, batch: int, like: Tensor) -> Tree:
        dtype = accumulation_dtype(like.dtype)
        zeros = tuple(like.new_zeros(batch, self.hidden_size, dtype=dtype) for _ in range(self.states))
        return zeros if self.states > 1 else zeros[0]

    def drive(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_ih, self.bias).unflatten(-1, (-1, self.hidden_size))

    def recurrent(self, h: Tensor) -> Tensor:
        """R h of all gates, (B, G, D)."""
        return headwise(self.weight_hh, h)

    def read(self, u: Tensor, h: Tree) -> Tensor:
        return (h[0] if self.states > 1 else h).to(u.dtype)
