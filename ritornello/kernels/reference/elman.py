"""h ← φ(u + R h), step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import loop
from ritornello.kernels.reference._recurrent import recurrent


def forward(u, weight, state, cu_seqlens, activation, save):
    phi = torch.tanh if activation == "tanh" else torch.relu

    def step(u, h):
        h = phi(u + recurrent(weight, h))
        return h, (h,)

    return loop(step, (u,), (state,), u, cu_seqlens)
