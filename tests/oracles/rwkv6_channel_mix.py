"""The feed-forward of RWKV-5 and RWKV-6, from arXiv:2404.05892, section 4, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, shift, sigmoid, weights

VARIANTS = {"plain": {}, "deep": {"hidden": 20, "place": (2, 4)}}


def forward(layer, x):
    w = weights(layer)

    def row(x):
        x_k, x_r = (x + (shift(x) - x) * mu for mu in w["shift_mix"])
        hidden = np.maximum(x_k @ w["k_proj.weight"].T, 0) ** 2
        return sigmoid(x_r @ w["r_proj.weight"].T) * (hidden @ w["out_proj.weight"].T)

    return rows(row, x)
