"""S' = diag(d) S, S ← S' + β k (v − S'ᵀk)ᵀ, o = scale · Sᵀ q, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import expand_heads, loop


def forward(q, k, v, beta, log_decay, decay, state, cu_seqlens, scale, save):
    heads = v.shape[2]
    d = decay if log_decay is None else log_decay.exp()
    if d is not None and d.dim() == 3:
        d = d.unsqueeze(-1)

    def step(q, k, v, beta, d, S):
        if d is not None:
            S = d.unsqueeze(-1) * S
        error = v - torch.einsum("bhkv,bhk->bhv", S, k)
        S = S + (beta.unsqueeze(-1) * k).unsqueeze(-1) * error.unsqueeze(-2)
        return scale * torch.einsum("bhkv,bhk->bhv", S, q), (S,)

    return loop(step, (expand_heads(q, heads), expand_heads(k, heads), v, beta, d), (state,), v, cu_seqlens)
