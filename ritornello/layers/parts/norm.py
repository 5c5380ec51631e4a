"""Norms over the last dimension: one pass over the memory each, by the op `rms_norm`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.ops import rms_norm
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["RMSNorm", "l2_normalize", "norm_of_heads"]


class RMSNorm(nn.Module):
    """y = x / √(mean(x²) + eps) ⊙ weight, and ⊙ silu(gate) where there is one; in the dtype of x.

    With `zero_centred` the factor is 1 + weight, and the weight starts at zero: what is kept in bfloat16 is then the
    small part, as in Gemma and Qwen3-Next.
    """

    def __init__(self, size: int, eps: float = 1e-5, zero_centred: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size) if zero_centred else torch.ones(size))
        self.eps, self.zero_centred = eps, zero_centred

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """x, and the gate if any, (..., size) → (..., size)."""
        weight = self.weight
        if self.zero_centred:
            weight = 1 + weight.to(accumulation_dtype(weight.dtype))
        return rms_norm(x, weight, gate, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def norm_of_heads(o: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """(o − mean o) / √(var o + eps) ⊙ weight + bias, mean and variance of each head for itself: a group norm.

    o (B, T, H, V), weight and bias (H·V,) → (B, T, H·V), in the dtype of o.
    """
    normed = F.layer_norm(o, o.shape[-1:], eps=eps).flatten(-2) * weight.to(o.dtype)
    return normed if bias is None else normed + bias.to(o.dtype)


def l2_normalize(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / √(Σ x² + eps) over the last dimension: the RMS norm of eps / K, divided by √K."""
    size = x.shape[-1]
    return rms_norm(x, x.new_full((size,), size**-0.5, dtype=accumulation_dtype(x.dtype)), eps=eps / size)
