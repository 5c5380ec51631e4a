"""QRNN, from arXiv:1611.01576, eq. 1–5: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {
    "plain": {},
    "f": {"pooling": "f", "conv_width": 1},
    "ifo": {"pooling": "ifo", "conv_width": 4},
}


def forward(layer, x):
    w, D = weights(layer), layer.width

    def row(x):
        c, out = np.zeros(D), []
        for t in range(len(x)):
            u = w["in_proj.bias"].copy()
            for j in range(min(t + 1, layer.conv_width)):
                u += w["in_proj.weight"][:, j * D : (j + 1) * D] @ x[t - j]
            z, f, *rest = np.split(u, layer.gates)
            enter = sigmoid(rest[1]) if layer.gates == 4 else 1 - sigmoid(f)
            c = sigmoid(f) * c + enter * np.tanh(z)
            out.append(sigmoid(rest[0]) * c if layer.gates > 2 else c)
        return np.stack(out)

    return rows(row, x)
