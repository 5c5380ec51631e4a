"""The product with a recurrent matrix, dense within each head."""

from __future__ import annotations

import torch

from ritornello.typing import Tensor

__all__ = ["recurrent"]


def recurrent(weight: Tensor, h: Tensor) -> Tensor:
    """R h for weight (..., H, d, d) as [..., head, out, in] and h (B, D): (B, ..., D)."""
    product = torch.einsum("...hoi,bhi->b...ho", weight.to(h.dtype), h.unflatten(-1, weight.shape[-3:-1]))
    return product.flatten(-2)
