"""The travelling-wave RNN."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cell import Cell
from ritornello.cells._recurrent import activation_of
from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["WaveRNNCell"]


class WaveRNNCell(Cell):
    """h_t = φ(w ⋆ h_{t−1} + V x_t + b): each of the channels of h is a ring, over which the short convolution w, from
    every channel to every other, lets activity travel; φ = relu or tanh.

    Args:
        input_size: of x (B, T, input_size).
        channels, ring: rings, and places on each; h is (B, T, channels · ring), channel by channel.
        conv_width: taps of w, odd and at most the ring.
        activation: φ, ``"relu"`` or ``"tanh"``.

    Source: Keller et al. 2023, "Traveling Waves Encode the Recent Past and Enhance Sequence Learning",
    arXiv:2309.08045, eq. 4, and the authors' code: w starts as a shift by one place, V with a deviation of 0.001.
    """

    def __init__(self, input_size: int, channels: int, ring: int, conv_width: int = 3, activation: str = "relu"):
        super().__init__()
        if channels < 1 or conv_width % 2 == 0 or not 1 <= conv_width <= ring:
            raise InputError(
                f"`channels`, `ring`, `conv_width` of WaveRNNCell are {channels}, {ring}, {conv_width}; wanted at "
                "least one channel, and an odd number of taps that is not above the ring."
            )
        self.state_shape = (channels * ring,)
        self.activation, self.phi = activation, activation_of(self, activation)
        self.weight_ih = nn.Parameter(0.001 * torch.randn(channels * ring, input_size))
        shift = torch.zeros(channels, channels, conv_width)
        shift[range(channels), range(channels), min(conv_width // 2 + 1, conv_width - 1)] = 1
        self.weight_hh = nn.Parameter(shift)
        self.bias = nn.Parameter(torch.zeros(channels))

    def drive(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_ih)

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        weight, side = self.weight_hh.to(h.dtype), self.weight_hh.shape[-1] // 2
        rings = F.pad(h.unflatten(-1, (weight.shape[0], -1)), (side, side), mode="circular")
        return self.phi(u.to(h.dtype) + F.conv1d(rings, weight, self.bias.to(h.dtype)).flatten(-2))

    def read(self, u: Tensor, h: Tensor) -> Tensor:
        return h.to(u.dtype)
