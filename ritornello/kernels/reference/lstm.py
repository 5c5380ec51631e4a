"""The LSTM, step by step."""

from __future__ import annotations

from torch import sigmoid, tanh

from ritornello.kernels.reference._loop import loop
from ritornello.kernels.reference._recurrent import recurrent


def forward(u, weight, h, c, cu_seqlens, save):
    def step(u, h, c):
        i, f, g, o = (u + recurrent(weight, h)).unbind(1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return h, (h, c)

    return loop(step, (u,), (h, c), u[:, :, 0], cu_seqlens)
