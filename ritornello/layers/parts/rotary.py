"""Rotary position embedding."""

from __future__ import annotations

import torch

from ritornello.typing import Tensor

__all__ = ["angles", "rotate", "turn"]


def angles(positions: Tensor, size: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles position · base^{−2i/size}, i < size/2, for positions (B, T): (B, T, 1, size/2)."""
    half = size // 2
    # float64: at a million tokens a float32 angle is off by a twentieth of a radian.
    frequency = base ** (-torch.arange(half, dtype=torch.float64, device=positions.device) / half)
    angle = (positions.to(torch.float64).unsqueeze(-1) * frequency).unsqueeze(2)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + size/2}) of the first `size` channels of x (B, T, H, D) by the `angles`; the others
    stay as they are."""
    half = cos.shape[-1]
    one, two, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin, rest], -1)


def rotate(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn the pairs (x_i, x_{i + D/2}) by the angle position · base^{−2i/D}.

    Args:
        x: (B, T, H, D), D even.
        positions: (B, T) integers.
        base: of the geometric frequencies.

    Source: Su et al. 2021, arXiv:2104.09864, eq. 34, in the half-split layout of GPT-NeoX and Llama.
    """
    return turn(x, *angles(positions, x.shape[-1], base, x.dtype))
