"""IndRNN, eq. 2 of arXiv:1803.04831: one channel and one step at a time, in float64."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "tanh": {"activation": "tanh"}}


def forward(layer, x):
    w = weights(layer)

    def row(x):
        driven = x @ w["cell.weight_ih"].T + w["cell.bias"]
        out = np.zeros_like(driven)
        for channel in range(layer.width):
            h = 0.0
            for t in range(len(x)):
                total = driven[t, channel] + w["cell.weight_hh"][channel] * h
                h = max(total, 0.0) if layer.cell.activation == "relu" else math.tanh(total)
                out[t, channel] = h
        return out

    return rows(row, x)
