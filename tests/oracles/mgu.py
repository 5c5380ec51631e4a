"""MGU, from table 2 of arXiv:1603.09420: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import blocks, rows, sigmoid, weights

VARIANTS = {"plain": {}, "heads": {"heads": 4}}


def forward(layer, x):
    w = weights(layer)
    W, R, b = (w[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias"))
    (W_f, W_h), (b_f, b_h), (R_f, R_h) = np.split(W, 2), np.split(b, 2), (blocks(m) for m in R)

    def row(x):
        h, out = np.zeros(layer.width), []
        for now in x:
            f = sigmoid(W_f @ now + R_f @ h + b_f)
            h = (1 - f) * h + f * np.tanh(W_h @ now + R_h @ (f * h) + b_h)
            out.append(h)
        return np.stack(out)

    return rows(row, x)
