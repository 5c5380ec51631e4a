"""UGRNN, from section 1 of arXiv:1611.09913: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import blocks, rows, sigmoid, weights

VARIANTS = {"plain": {}, "heads": {"heads": 4, "gate_bias": 0.0}}


def forward(layer, x):
    w = weights(layer)
    W, R, b = (w[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias"))
    (W_c, W_g), (b_c, b_g), (R_c, R_g) = np.split(W, 2), np.split(b, 2), (blocks(m) for m in R)

    def row(x):
        h, out = np.zeros(layer.width), []
        for now in x:
            candidate = np.tanh(W_c @ now + R_c @ h + b_c)
            g = sigmoid(W_g @ now + R_g @ h + b_g)
            h = g * h + (1 - g) * candidate
            out.append(h)
        return np.stack(out)

    return rows(row, x)
