"""MEGA's moving average as a convolution, from arXiv:2209.10655, section 3.1: its kernel written out over time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, silu, weights

VARIANTS = {"plain": {"state_size": 4}, "one": {"state_size": 1}}


def forward(layer, x):
    w = weights(layer)
    alpha, delta = sigmoid(w["cell.alpha"]), sigmoid(w["cell.delta"])

    def row(x):
        kernel = [
            (w["cell.eta"] * (1 - alpha * delta) ** t * alpha * w["cell.beta"]).sum(1) / np.sqrt(alpha.shape[1])
            for t in range(len(x))
        ]
        y = np.stack([sum(kernel[t - s] * x[s] for s in range(t + 1)) for t in range(len(x))])
        return silu(y + w["omega"] * x)

    return rows(row, x)
