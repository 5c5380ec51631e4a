"""xLSTM's scalar memory, step by step."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from ritornello.kernels.reference._loop import loop
from ritornello.kernels.reference._recurrent import recurrent


def forward(u, weight, h, c, n, m, cu_seqlens, save):
    def step(u, h, c, n, m):
        i, f, z, o = (u + recurrent(weight, h)).unbind(1)
        kept = logsigmoid(f) + m
        with torch.no_grad():
            m_new = torch.where(n == 0, i, torch.maximum(kept, i))
        # Above 0 only where n is 0, which must not become inf · 0.
        keep = (kept - m_new).clamp(max=0).exp()
        add = (i - m_new).exp()
        c = keep * c + add * torch.tanh(z)
        n = keep * n + add
        h = torch.sigmoid(o) * c / n
        return h, (h, c, n, m_new)

    return loop(step, (u,), (h, c, n, m.detach()), u[:, :, 0], cu_seqlens)
