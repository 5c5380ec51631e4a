"""LFM2's gated short convolution, arXiv:2511.23404."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rows, weights

VARIANTS = {"plain": {}, "wider, with biases": {"conv_width": 5, "bias": True}}


def forward(layer, x):
    w = weights(layer)

    def row(x):
        b, c, inner = np.split(x @ w["in_proj.weight"].T + w.get("in_proj.bias", 0), 3, axis=1)
        y = c * causal_conv(b * inner, w["conv.weight"], w.get("conv.bias"))
        return y @ w["out_proj.weight"].T + w.get("out_proj.bias", 0)

    return rows(row, x)
