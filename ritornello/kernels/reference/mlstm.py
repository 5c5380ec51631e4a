"""xLSTM's matrix memory, step by step."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from ritornello.kernels.reference._loop import loop


def forward(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps, save):
    def step(q, k, v, i, f, C, n, m):
        log_f = logsigmoid(f)
        with torch.no_grad():
            m_new = torch.maximum(log_f + m, i)
        keep = (log_f + m - m_new).exp().unsqueeze(-1)
        add = (i - m_new).exp().unsqueeze(-1)
        C = keep.unsqueeze(-1) * C + (add * k).unsqueeze(-1) * v.unsqueeze(-2)
        n = keep * n + add * k
        q = scale * q
        norm = torch.maximum((n * q).sum(-1).abs(), (-m_new).exp()) + eps
        return torch.einsum("bhkv,bhk->bhv", C, q) / norm.unsqueeze(-1), (C, n, m_new)

    return loop(step, (q, k, v, i, f), (C, n, m.detach()), v, cu_seqlens)
