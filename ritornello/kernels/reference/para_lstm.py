"""ParaRNN's LSTM, step by step."""

from __future__ import annotations

from torch import sigmoid, tanh

from ritornello.kernels.reference._loop import loop


def forward(u, weight, peephole, h, c, cu_seqlens, save):
    a_f, a_o, a_g = weight.unbind()
    p_f, p_o = peephole.unbind()

    def step(u, h, c):
        f = sigmoid(u[:, 0] + a_f * h + p_f * c)
        c = f * c + (1 - f) * tanh(u[:, 2] + a_g * h)
        h = sigmoid(u[:, 1] + a_o * h + p_o * c) * tanh(c)
        return h, (h, c)

    return loop(step, (u,), (h, c), u[:, :, 0], cu_seqlens)
