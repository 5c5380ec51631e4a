"""The short causal convolution with its window as state."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import Call, Leaf
from ritornello.typing import Tensor

__all__ = ["ShortConv"]


class ShortConv(nn.Module):
    """y_t = act(bias + Σ_j w_j ⊙ x_{t−W+1+j}), each channel for itself.

    Args:
        channels: D.
        width: W, the taps.
        bias: whether there is one.
        activation: ``"silu"`` or None.
    """

    def __init__(self, channels: int, width: int = 4, bias: bool = False, activation: str | None = "silu"):
        super().__init__()
        if width < 1:
            raise InputError(f"`conv_width` is {width}; wanted at least 1 tap.")
        bound = 1 / math.sqrt(width)  # nn.Conv1d's own initialisation for one channel in a group
        self.weight = nn.Parameter(torch.empty(channels, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None
        self.activation = activation

    def leaf(self) -> Leaf:
        """The window: the last W − 1 inputs, oldest first."""
        return Leaf((self.weight.shape[0], self.weight.shape[1] - 1), "input")

    def forward(self, x: Tensor, window: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        return call.conv(x, self.weight, self.bias, window, self.activation)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, width={self.weight.shape[1]}, activation={self.activation}"
