"""SRU, from arXiv:1709.02755, eq. 1–4: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {"plain": {}, "biased": {"bias": -2.0}, "scaled": {"scale": 0.5}}


def forward(layer, x):
    w = weights(layer)
    W, W_f, W_r = np.split(w["cell.weight"], 3)
    (v_f, v_r), (b_f, b_r), alpha = w["cell.state_weight"], w["cell.bias"], layer.cell.scale

    def row(x):
        c, out = np.zeros(layer.width), []
        for now in x:
            f, r = sigmoid(W_f @ now + v_f * c + b_f), sigmoid(W_r @ now + v_r * c + b_r)
            c = f * c + (1 - f) * (W @ now)
            out.append(r * c + (1 - r) * alpha * now)
        return np.stack(out)

    return rows(row, x)
