"""S ← diag(d) S + k vᵀ, o = scale · Sᵀ q, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import expand_heads, loop


def forward(q, k, v, log_decay, decay, bonus, state, cu_seqlens, scale, save):
    heads = v.shape[2]
    d = decay if log_decay is None else log_decay.exp()
    if d is not None and d.dim() == 3:
        d = d.unsqueeze(-1)

    def step(q, k, v, d, S):
        added = k.unsqueeze(-1) * v.unsqueeze(-2)
        read = None if bonus is None else S + bonus.unsqueeze(-1) * added
        S = added + (S if d is None else d.unsqueeze(-1) * S)
        return scale * torch.einsum("bhkv,bhk->bhv", S if read is None else read, q), (S,)

    return loop(step, (expand_heads(q, heads), expand_heads(k, heads), v, d), (state,), v, cu_seqlens)
