"""The GRU, step by step."""

from __future__ import annotations

from torch import sigmoid, tanh

from ritornello.kernels.reference._loop import loop
from ritornello.kernels.reference._recurrent import recurrent


def forward(u, weight, bias, state, cu_seqlens, save):
    def step(u, h):
        r, z, n = recurrent(weight, h).unbind(1)
        if bias is not None:
            n = n + bias
        r, z = sigmoid(u[:, 0] + r), sigmoid(u[:, 1] + z)
        h = (1 - z) * tanh(u[:, 2] + r * n) + z * h
        return h, (h,)

    return loop(step, (u,), (state,), u[:, :, 0], cu_seqlens)
