"""Rotary position embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ritornello.typing import Tensor

__all__ = ["Stretch", "Yarn", "angles", "rotate", "turn"]


@dataclass(frozen=True)
class Stretch:
    """Slower rotations, for texts that are longer than those of the training.

    All frequencies are divided by `factor`; with the other three, only those of the pairs that turn less than `low`
    times in `length` steps, not those that turn more than `high` times, and those between by a share between.

    Source: Chen et al. 2023, arXiv:2306.15595 (all); Llama 3.1, Grattafiori et al. 2024, arXiv:2407.21783, and its
    authors' code (some).
    """

    factor: float
    low: float | None = None
    high: float | None = None
    length: int | None = None

    amplitude = 1.0

    def of(self, frequency: Tensor, base: float) -> Tensor:
        slow = frequency / self.factor
        if self.low is None or self.high is None or self.length is None:
            return slow
        turns = self.length * frequency / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return slow + kept * (frequency - slow)


@dataclass(frozen=True)
class Yarn:
    """Slower rotations, pair by pair, and larger queries and keys (YaRN).

    Pair i turns n_i = length · θ_i / 2π times. Those up to the pair with n = fast keep θ_i, those from the pair with
    n = slow on turn by θ_i / factor, and between them the share grows linearly in i. What is turned is multiplied by
    `scale` too.

    Args:
        factor: by how much the text is longer.
        length: of the texts before.
        fast, slow: turns.
        scale: 0.1 · ln(factor) + 1 where None.
        whole: both bounds are widened to whole pairs.

    Source: Peng et al. 2023, arXiv:2309.00071, section 3, as in the authors' code and in transformers: the paper's ramp
    is linear in n, theirs in i.
    """

    factor: float
    length: int
    fast: float = 32.0
    slow: float = 1.0
    scale: float | None = None
    whole: bool = True

    @property
    def amplitude(self) -> float:
        return 0.1 * math.log(max(self.factor, 1.0)) + 1 if self.scale is None else self.scale

    def of(self, frequency: Tensor, base: float) -> Tensor:
        half = frequency.shape[0]
        first, last = (
            half * math.log(self.length / (2 * math.pi * n)) / math.log(base) for n in (self.fast, self.slow)
        )
        if self.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * half - 1)
        pairs = torch.arange(half, dtype=frequency.dtype, device=frequency.device)
        slowed = ((pairs - first) / max(last - first, 1e-3)).clamp(0, 1)
        return frequency * (1 - slowed + slowed / self.factor)


def angles(
    positions: Tensor, size: int, base: float, dtype: torch.dtype, stretch: Stretch | Yarn | None = None
) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles position · base^{−2i/size}, i < size/2, for positions (B, T): (B, T, 1, size/2)."""
    half = size // 2
    # float64: at a million tokens a float32 angle is off by a twentieth of a radian.
    frequency = base ** (-torch.arange(half, dtype=torch.float64, device=positions.device) / half)
    frequency = frequency if stretch is None else stretch.of(frequency, base)
    angle = (positions.to(torch.float64).unsqueeze(-1) * frequency).unsqueeze(2)
    cos, sin = angle.cos(), angle.sin()
    if stretch is not None and stretch.amplitude != 1:
        cos, sin = cos * stretch.amplitude, sin * stretch.amplitude
    return cos.to(dtype), sin.to(dtype)


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
