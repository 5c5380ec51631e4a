"""The bilinear recurrence of arXiv:2505.21749: its three-way sum over the whole state, normalised once at each time.

The products are not normalised on the way, as scale does not matter: h_t is the direction of A(x_t) … A(x_1) h_0.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "dense": {"heads": 1}, "blocks of 16": {"heads": 2}}


def forward(layer, x):
    heads = layer.spec["heads"]
    size = layer.width // heads
    w = weights(layer)
    W = w["cell.weight"].reshape(heads, size, size, layer.width)
    B = w["cell.bias"].reshape(heads, size, size)

    def row(x):
        out = np.zeros((len(x), heads, size))
        for head in range(heads):
            product = np.ones(size)
            for t, now in enumerate(x):
                matrix = [[B[head, i, j] + W[head, i, j] @ now for j in range(size)] for i in range(size)]
                product = np.array([sum(a * p for a, p in zip(line, product, strict=True)) for line in matrix])
                out[t, head] = product / np.sqrt((product**2).sum())
        return out.reshape(len(x), -1)

    return rows(row, x)
