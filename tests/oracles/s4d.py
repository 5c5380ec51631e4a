"""S4D as a convolution, from arXiv:2206.11893, eq. 4 and 5: its kernel written out over time, in complex128."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {
    "plain": {"state_size": 8},
    "inv": {"state_size": 6, "init": "inv"},
    "legs": {"state_size": 4, "init": "legs", "step_min": 0.1, "step_max": 0.1},
}

gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def forward(layer, x):
    w = {name.removeprefix("cell."): value for name, value in weights(layer).items()}
    A = -np.exp(w["log_A_real"]) + 1j * w["A_imag"]
    step = np.exp(w["log_step"])[:, None]
    B = (np.exp(step * A) - 1) / A
    C = w["C"][..., 0] + 1j * w["C"][..., 1]

    def row(x):
        kernel = np.stack([2 * (C * np.exp(step * A * t) * B).sum(-1).real for t in range(len(x))])
        y = np.stack([(kernel[: t + 1][::-1] * x[: t + 1]).sum(0) for t in range(len(x))]) + w["D"] * x
        u, v = np.split(gelu(y) @ w["out_proj.weight"].T + w["out_proj.bias"], 2, axis=1)
        return u * sigmoid(v)

    return rows(row, x)
