"""Rotary position embedding."""

from __future__ import annotations

import torch

from ritornello.typing import Tensor

__all__ = ["rotate"]


def rotate(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn the pairs (x_i, x_{i + D/2}) by the angle position · base^{−2i/D}.

    Args:
        x: (B, T, H, D), D even.
        positions: (B, T) integers.
        base: of the geometric frequencies.

    Source: Su et al. 2021, arXiv:2104.09864, eq. 34, in the half-split layout of GPT-NeoX and Llama.
    """
    half = x.shape[-1] // 2
    # float64: at a million tokens a float32 angle is off by a twentieth of a radian.
    frequency = base ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angle = positions.to(torch.float64).unsqueeze(-1) * frequency
    cos, sin = angle.cos().to(x.dtype).unsqueeze(2), angle.sin().to(x.dtype).unsqueeze(2)
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)
