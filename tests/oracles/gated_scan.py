"""h_t = (1 − z_t) h_{t−1} + z_t g(v_t) as a weighted mean: h_t = Σ_s w_{ts} g(v_s) + w_{t0} h_0 with weights that are
products of 1 − z (QRNN, arXiv:1611.01576, eq. 3; g of minGRU: arXiv:2410.01201, appendix B)."""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(gate, value, state, activation=None):
    z = sigmoid(gate)
    if activation == "positive":
        value = np.where(value >= 0, value + 0.5, sigmoid(value))
    elif activation == "silu":
        value = value * sigmoid(value)
    elif activation == "tanh":
        value = np.tanh(value)
    outputs = []
    for t in range(z.shape[1]):
        total = np.prod(1 - z[:, : t + 1], axis=1) * state
        for s in range(t + 1):
            total = total + np.prod(1 - z[:, s + 1 : t + 1], axis=1) * z[:, s] * value[:, s]
        outputs.append(total)
    return (np.stack(outputs, 1) if outputs else value.copy()), (outputs[-1] if outputs else state,)
