"""The block-diagonal LRNN, from arXiv:2309.07412, section 4: one block and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "pairs": {"block": 2, "p": 2.0}}


def forward(layer, x):
    w = {name.removeprefix("cell."): value for name, value in weights(layer).items()}
    n, p = layer.cell.block, layer.cell.p
    count = layer.width // n

    def perceptron(name, x):
        hidden = np.maximum(x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"], 0)
        return hidden @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]

    def row(x):
        blocks, values = perceptron("block_proj", x), perceptron("value_proj", x)
        out = np.zeros((len(x), n, count))
        for d in range(count):
            h = w["start"][:, d]
            for t in range(len(x)):
                A = blocks[t].reshape(n, n, count)[:, :, d]
                A = A - A.mean(0)
                A = A / max((np.abs(A[:, j]) ** p).sum() ** (1 / p) for j in range(n))
                h = A @ h + values[t].reshape(n, count)[:, d]
                out[t, :, d] = h
        return out.reshape(len(x), -1)

    return rows(row, x)
