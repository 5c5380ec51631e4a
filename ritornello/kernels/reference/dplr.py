"""S ← (diag(d) + b aᵀ) S + k vᵀ, o = scale · Sᵀ q, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import expand_heads, loop


def forward(q, k, v, a, b, log_decay, state, cu_seqlens, scale, save):
    heads = v.shape[2]
    d = log_decay.exp()
    if d.dim() == 3:
        d = d.unsqueeze(-1)

    def step(q, k, v, a, b, d, S):
        read = torch.einsum("bhkv,bhk->bhv", S, a)
        S = d.unsqueeze(-1) * S + b.unsqueeze(-1) * read.unsqueeze(-2) + k.unsqueeze(-1) * v.unsqueeze(-2)
        return scale * torch.einsum("bhkv,bhk->bhv", S, q), (S,)

    q, k, a, b = (expand_heads(x, heads) for x in (q, k, a, b))
    return loop(step, (q, k, v, a, b, d), (state,), v, cu_seqlens)
