"""h_i ← Σ_j a_ij ⊙ h_j + b_i, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import loop


def forward(a, b, state, cu_seqlens, save):
    def step(a, b, h):
        h = torch.einsum("nijd,njd->nid", a, h) + b
        return h, (h,)

    return loop(step, (a, b), (state,), b, cu_seqlens)
