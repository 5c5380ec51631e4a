"""Dilated causal convolutions, one above the other, with their windows as state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import Call, Leaf, at_least
from ritornello.layers.parts.attention import slide_window
from ritornello.typing import Tensor

__all__ = ["DilatedConv", "TemporalConvolutions"]


class DilatedConv(nn.Module):
    """y_t = b + Σ_j w_j ⊙ x_{t − j·dilation}, j < `taps`, each channel for itself.

    Args:
        channels: of x.
        taps: the last one on the present.
        dilation: steps from tap to tap.
    """

    def __init__(self, channels: int, taps: int, dilation: int):
        super().__init__()
        bound = 1 / math.sqrt(taps)  # nn.Conv1d's own initialisation for one channel in a group
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))
        self.dilation, self.reach = dilation, dilation * (taps - 1)

    def leaf(self) -> Leaf:
        """The window: the inputs that later steps still read, oldest first."""
        return Leaf((self.reach, self.weight.shape[0]), "input")

    def forward(self, x: Tensor, window: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """x (B, T, D), window (N, reach, D) → y (B, T, D), and the next window."""
        sequence = call.sequence
        rows = sequence.pad(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        seen = torch.cat([window.to(x.dtype), rows], 1)
        if rows.shape[1] == 0:
            y = rows
        elif rows.shape[1] == 1:  # a convolution takes five times as long to begin
            y = (seen[:, :: self.dilation] * weight.mT).sum(1, keepdim=True) + bias
        else:
            y = F.conv1d(seen.mT, weight.unsqueeze(1), bias, dilation=self.dilation, groups=weight.shape[0]).mT
        lengths = sequence.length if sequence.cu_seqlens is None else sequence.lengths(x.device)
        return sequence.unpad(y), slide_window(seen, lengths, self.reach)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, taps={self.weight.shape[1]}, dilation={self.dilation}"


class TemporalConvolutions(nn.Module):
    """c ← c + silu(convolution_i(c)), i = 1 … `depth`, from c = x on, the i-th convolution with dilation
    `growth`^{i − 1}: after them c_t has seen 1 + (taps − 1) Σ_i growth^{i − 1} steps.

    Source: Bai et al. 2018, arXiv:1803.01271, section 3, with one convolution between residual connections.
    """

    def __init__(self, kind: str, channels: int, taps: int, growth: int, depth: int):
        super().__init__()
        at_least(2, kind, conv_width=taps)
        at_least(1, kind, dilation=growth, conv_depth=depth)
        self.convs = nn.ModuleList(DilatedConv(channels, taps, growth**i) for i in range(depth))

    def leaves(self) -> dict[str, Leaf]:
        return {f"conv{i}": conv.leaf() for i, conv in enumerate(self.convs)}  # type: ignore[operator]

    def forward(self, x: Tensor, state: Mapping[str, Tensor], call: Call) -> tuple[Tensor, dict[str, Tensor]]:
        windows = {}
        for i, conv in enumerate(self.convs):
            y, windows[f"conv{i}"] = conv(x, state[f"conv{i}"], call)
            x = x + F.silu(y)
        return x, windows
