"""TCNCA, from arXiv:2312.05605: MEGA's attention after dilated convolutions, a tap at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.mega import attention_weights, gated_attention
from tests.oracles.numpy_parts import rows, silu, weights

VARIANTS = {
    "plain": {},
    "small": {"conv_width": 3, "dilation": 2, "conv_depth": 3, "key_size": 6, "value_size": 9, "chunk_size": 5},
    "laplace": {
        "conv_width": 2,
        "dilation": 3,
        "conv_depth": 2,
        "chunk_size": 4,
        "function": "laplace",
        "positions": "simple",
    },
}


def forward(layer, x):
    w, growth = weights(layer), layer.spec["dilation"]

    def row(x):
        m = x
        for i in range(layer.spec["conv_depth"]):
            taps = w[f"convolutions.convs.{i}.weight"].T
            out = np.tile(w[f"convolutions.convs.{i}.bias"], (len(x), 1))
            for t in range(len(x)):
                for back, tap in enumerate(taps[::-1]):
                    if t >= back * growth**i:
                        out[t] += tap * m[t - back * growth**i]
            m = m + silu(out)
        return gated_attention(layer, attention_weights(layer), x, m)

    return rows(row, x)
