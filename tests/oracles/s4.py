"""S4, from arXiv:2111.00396: its discretised system on all N complex numbers, one step at a time, in complex128."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {"plain": {"state_size": 6}, "large steps": {"state_size": 4, "step_min": 0.2, "step_max": 0.9}}

gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def forward(layer, x):
    w = {name.removeprefix("cell.system."): value for name, value in weights(layer).items()}

    def pairs(name):
        half = w[name][..., 0] + 1j * w[name][..., 1]
        return np.concatenate([half, half.conj()], -1)

    poles = -np.exp(w["log_A_real"]) + 1j * w["A_imag"]
    P = pairs("P")
    A = np.diag(np.concatenate([poles, poles.conj()])) - np.outer(P, P.conj())
    B, C, eye = pairs("B"), pairs("C"), np.eye(len(A))

    def row(x):
        y = np.zeros_like(x)
        for channel, step in enumerate(np.exp(w["log_step"])):
            inverse = np.linalg.inv(eye - step / 2 * A)
            h = np.zeros(len(A), complex)
            for t, now in enumerate(x[:, channel]):
                h = inverse @ ((eye + step / 2 * A) @ h + step * B * now)
                y[t, channel] = (C[channel] @ h).real + w["D"][channel] * now
        u, v = np.split(gelu(y) @ w["out_proj.weight"].T + w["out_proj.bias"], 2, axis=1)
        return u * sigmoid(v)

    return rows(row, x)
