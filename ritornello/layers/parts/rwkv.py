"""What the RWKV layers share: the token shift, the norm of heads, and what their first values depend on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.layers.base import Call, Leaf
from ritornello.layers.parts.norm import norm_of_heads
from ritornello.layers.parts.place import Place
from ritornello.typing import Tensor

__all__ = [
    "HeadNorm",
    "decay_speeds",
    "draw_projections",
    "orthogonal_",
    "present_bonus",
    "ramp",
    "shift_leaf",
    "shifted",
]


def shift_leaf(width: int) -> Leaf:
    """The token before the next one."""
    return Leaf((width,), "input")


def shifted(x: Tensor, previous: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """x_{t−1} − x_t at every step (x is then mixed with its past as x + μ ⊙ this), and the last x of each sequence."""
    before, last = call.sequence.shift(x, previous)
    return before - x, last


class HeadNorm(nn.Module):
    """y = (o − mean o) / √(var o + eps) ⊙ weight + bias, mean and variance of each head for itself: a group norm."""

    def __init__(self, heads: int, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads * size))
        self.bias = nn.Parameter(torch.zeros(heads * size))
        self.size, self.eps = size, eps

    def forward(self, o: Tensor) -> Tensor:
        """(B, T, H, V) → (B, T, H·V)."""
        return norm_of_heads(o, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0] // self.size}, {self.size}, eps={self.eps}"


def ramp(size: int) -> Tensor:
    """From 0 at the first channel to 1 at the last."""
    return torch.arange(size) / max(size - 1, 1)


@torch.no_grad()
def orthogonal_(weight: Tensor, gain: float) -> None:
    """Orthogonal, times `gain`; times √(in / out) where it leads to fewer channels than it reads."""
    out, into = weight.shape
    nn.init.orthogonal_(weight, gain * max(1.0, into / out) ** 0.5)


def decay_speeds(size: int, place: Place) -> Tensor:
    """ω of the decays exp(−exp(ω)) of RWKV-5 and 6: from −6 at the first channel, the slowest, to −1 at the last."""
    return 5 * ramp(size) ** (0.7 + 1.3 * place.rising) - 6


def present_bonus(size: int, place: Place) -> Tensor:
    """u of RWKV-5 and 6: larger in later layers and at earlier channels, with a zigzag of period 3."""
    zigzag = 0.1 * ((torch.arange(size) + 1) % 3 - 1)
    return place.rising * (1 - ramp(size)) + zigzag


@torch.no_grad()
def draw_projections(layer: Any, place: Place) -> None:
    """The projections of RWKV-5 and 6: orthogonal, those of keys and gate small, the output's zero."""
    for name, gain in (("r_proj", 1.0), ("k_proj", 0.1), ("v_proj", 1.0), ("gate_proj", 0.1)):
        nn.init.orthogonal_(getattr(layer, name).weight, gain)
    nn.init.zeros_(layer.out_proj.weight)
    layer.norm.weight.fill_(((place.index + 1) / place.count) ** 0.7)
