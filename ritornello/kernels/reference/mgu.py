"""The minimal gated unit, step by step."""

from __future__ import annotations

from torch import sigmoid, tanh

from ritornello.kernels.reference._loop import loop
from ritornello.kernels.reference._recurrent import recurrent


def forward(u, weight, state, cu_seqlens, save):
    def step(u, h):
        f = sigmoid(u[:, 0] + recurrent(weight[0], h))
        h = (1 - f) * h + f * tanh(u[:, 1] + recurrent(weight[1], f * h))
        return h, (h,)

    return loop(step, (u,), (state,), u[:, :, 0], cu_seqlens)
