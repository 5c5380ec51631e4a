"""ParaRNN's GRU, step by step."""

from __future__ import annotations

from torch import sigmoid, tanh

from ritornello.kernels.reference._loop import loop


def forward(u, weight, state, cu_seqlens, save):
    a_z, a_r, a_c = weight.unbind()

    def step(u, h):
        z, r = sigmoid(u[:, 0] + a_z * h), sigmoid(u[:, 1] + a_r * h)
        h = (1 - z) * h + z * tanh(u[:, 2] + a_c * h * r)
        return h, (h,)

    return loop(step, (u,), (state,), u[:, :, 0], cu_seqlens)
