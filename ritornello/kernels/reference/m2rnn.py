"""S ← f S + (1 − f) tanh(S W + k vᵀ), o = Sᵀ q, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import expand_heads, loop


def forward(q, k, v, f, weight, state, cu_seqlens, save):
    heads = v.shape[2]
    weight = weight.to(state.dtype)

    def step(q, k, v, f, S):
        f = f[..., None, None]
        S = f * S + (1 - f) * torch.tanh(S @ weight + k.unsqueeze(-1) * v.unsqueeze(-2))
        return torch.einsum("bhkv,bhk->bhv", S, q), (S,)

    return loop(step, (expand_heads(q, heads), expand_heads(k, heads), v, f), (state,), v, cu_seqlens)
