"""Random tensors of a case: drawn in float64 and rounded to the dtype that is tested, so all dtypes see the same."""

from __future__ import annotations

import zlib

import torch

from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["Draw", "strided"]


class Draw:
    """Random tensors of one case, the same for every dtype: inputs in `dtype`, gates in the accumulation dtype."""

    def __init__(self, seed: str, dtype: torch.dtype, device: str):
        self.dtype, self.device, self.wide = dtype, device, accumulation_dtype(dtype)
        self.generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))

    def normal(self, *shape: int, gate: bool = False) -> Tensor:
        complex_ = self.dtype.is_complex
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.complex128 if complex_ else torch.float64)
        return self._place(drawn, gate)

    def uniform(self, low: float, high: float, *shape: int, gate: bool = True) -> Tensor:
        drawn = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return self._place(low + (high - low) * drawn, gate)

    def unit(self, *shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return self._place(torch.nn.functional.normalize(drawn, dim=-1), False)

    def log_decay(self, kind: str, *shape: int) -> Tensor:
        """ "mild" in [−0.5, 0]; "strong": −30 a step among −0.01 ones."""
        if kind == "mild":
            return self.uniform(-0.5, 0.0, *shape)
        strong = torch.rand(shape, generator=self.generator) < 0.3
        return self._place(torch.where(strong, -30.0, -0.01).double(), True)

    def signed(self, *shape: int) -> Tensor:
        """A decay in [−1, 1] with exact zeros, ones and minus ones, and tiny values."""
        drawn = 2 * torch.rand(shape, generator=self.generator, dtype=torch.float64) - 1
        pick = torch.randint(0, 12, shape, generator=self.generator)
        for index, value in enumerate((0.0, -1.0, 1.0, -1e-20)):
            drawn = torch.where(pick == index, value, drawn)
        return self._place(drawn, True)

    def _place(self, drawn: Tensor, gate: bool) -> Tensor:
        return drawn.to(self.device, self.wide if gate else self.dtype)


def strided(x: Tensor) -> Tensor:
    """The same values, no dimension contiguous."""
    if x.dim() < 2:
        return torch.stack([x, x], -1)[..., 0]
    return torch.stack([x, x], -1)[..., 0].transpose(0, 1).clone(memory_format=torch.preserve_format).transpose(0, 1)
