"""y = x / √(mean(x²) + eps) ⊙ weight ⊙ silu(gate)."""

from __future__ import annotations

from ritornello.typing import accumulation_dtype


def forward(x, weight, gate, eps, save):
    wide = accumulation_dtype(x.dtype)
    y = x.to(wide)
    y = y / (y.square().mean(-1, keepdim=True) + eps).sqrt()
    if weight is not None:
        y = y * weight.to(wide)
    if gate is not None:
        y = y * gate.to(wide) * gate.to(wide).sigmoid()
    return (y.to(x.dtype),), None
