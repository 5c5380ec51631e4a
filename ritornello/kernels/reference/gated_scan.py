"""h ← (1 − σ(gate)) ⊙ h + σ(gate) ⊙ g(value), step by step."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ritornello.kernels.reference._loop import loop

_ACTIVATIONS = {
    None: lambda v: v,
    "positive": lambda v: torch.where(v >= 0, v + 0.5, torch.sigmoid(v)),
    "tanh": torch.tanh,
    "silu": F.silu,
}


def forward(gate, value, state, cu_seqlens, activation, save):
    def step(gate, value, h):
        z = torch.sigmoid(gate)
        h = (1 - z) * h + z * _ACTIVATIONS[activation](value)
        return h, (h,)

    return loop(step, (gate, value), (state,), value, cu_seqlens)
