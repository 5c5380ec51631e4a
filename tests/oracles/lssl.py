"""LSSL, from arXiv:2110.13985: the trapezoid rule on HiPPO's operators, one step at a time, in float64."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {
    "plain": {"state_size": 5},
    "legt": {"state_size": 4, "operator": "legt"},
    "lagt": {"state_size": 3, "operator": "lagt", "step_min": 0.2, "step_max": 0.9},
}

gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def operator(name, size):
    A, B = np.zeros((size, size)), np.ones(size)
    for n in range(size):
        for k in range(size):
            if name == "legs":
                A[n, k] = -(((2 * n + 1) * (2 * k + 1)) ** 0.5) if n > k else -(n + 1) * (n == k)
            elif name == "legt":
                A[n, k] = -(2 * n + 1) * ((-1) ** (n - k) if n >= k else 1)
            else:
                A[n, k] = -1.0 * (n >= k)
        B[n] = {"legs": (2 * n + 1) ** 0.5, "legt": (2 * n + 1) * (-1) ** n, "lagt": 1}[name]
    return A, B


def forward(layer, x):
    w = {name.removeprefix("cell.system."): value for name, value in weights(layer).items()}
    A, B = operator(layer.operator, w["C"].shape[1])
    eye = np.eye(len(A))

    def row(x):
        y = np.zeros_like(x)
        for channel, step in enumerate(np.exp(w["log_step"])):
            h = np.zeros(len(A))
            for t, now in enumerate(x[:, channel]):
                h = np.linalg.solve(eye - step / 2 * A, (eye + step / 2 * A) @ h + step * B * now)
                y[t, channel] = w["C"][channel] @ h + w["D"][channel] * now
        return gelu(y) @ w["out_proj.weight"].T + w["out_proj.bias"]

    return rows(row, x)
