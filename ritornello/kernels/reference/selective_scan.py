"""h ← e^{ΔA} h + Δ x Bᵀ, y = h C + D x, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import loop


def forward(x, delta, A, B, C, D, state, cu_seqlens, signed, save):
    def step(x, delta, B, C, h):
        a = (delta.unsqueeze(-1) * A).exp()
        if signed:
            a = 2 * a - 1
        h = a * h + (delta * x).unsqueeze(-1) * B.unsqueeze(-2)
        y = torch.einsum("bdn,bn->bd", h, C)
        return y if D is None else y + D * x, (h,)

    return loop(step, (x, delta, B, C), (state,), x, cu_seqlens)
