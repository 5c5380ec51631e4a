"""MGU, from table 2 of arXiv:1603.09420: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import blocks, rows, sigmoid, weights

VARIANTS = {"plain": {}, "heads": {"heads": 4}}


def mgu(u, weight, h):
    """u (B, T, 2, D), weight (2, H, d, d), h (B, D): h over time and the last."""
    u, h = (np.array(x, dtype=np.float64) for x in (u, h))
    R_f, R_h = (blocks(np.asarray(m, dtype=np.float64)) for m in weight)
    out = np.zeros((*u.shape[:2], u.shape[3]))
    for b, t in np.ndindex(u.shape[:2]):
        f = sigmoid(u[b, t, 0] + R_f @ h[b])
        h[b] = (1 - f) * h[b] + f * np.tanh(u[b, t, 1] + R_h @ (f * h[b]))
        out[b, t] = h[b]
    return out, h


def forward(layer, x):
    w = weights(layer)
    W, R, b = (w[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias"))

    def row(x):
        return mgu((x @ W.T + b).reshape(1, len(x), 2, -1), R, np.zeros((1, layer.width)))[0][0]

    return rows(row, x)
