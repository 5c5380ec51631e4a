"""The Legendre memory unit, from Voelker et al. 2019, section 2: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {
    "plain": {"order": 6, "memory_length": 24.0},
    "euler": {"order": 5, "memory_length": 60.0, "discretization": "euler"},
}


def system(order, theta):
    A = np.array([[(2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1)) for j in range(order)] for i in range(order)])
    B = np.array([(2 * i + 1) * (-1) ** i for i in range(order)], float)
    return A / theta, B / theta


def exact(A, B):
    """e^A and ∫₀¹ e^{As} B ds, by their power series."""
    M, drive, term, integral = np.eye(len(A)), B.copy(), np.eye(len(A)), np.eye(len(A))
    for n in range(1, 60):
        term = term @ A / n
        integral = integral @ A / (n + 1)
        M, drive = M + term, drive + integral @ B
    return M, drive


def forward(layer, x):
    w = {name.removeprefix("cell."): value for name, value in weights(layer).items()}
    order = len(w["memory_encoder"])
    A, B = system(order, layer.memory_length)
    A, B = (np.eye(order) + A, B) if layer.discretization == "euler" else exact(A, B)

    def row(x):
        h, m, out = np.zeros(layer.width), np.zeros(order), []
        for now in x:
            u = w["input_encoder"] @ now + w["hidden_encoder"] @ h + w["memory_encoder"] @ m
            m = A @ m + B * u
            h = np.tanh(w["input_kernel"] @ now + w["hidden_kernel"] @ h + w["memory_kernel"] @ m)
            out.append(h)
        return np.stack(out)

    return rows(row, x)
