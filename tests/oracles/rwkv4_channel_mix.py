"""RWKV-4's channel mix, from arXiv:2305.13048, eq. 19–21."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights
from tests.oracles.rwkv4 import mixed

VARIANTS = {"plain": {}, "a late block": {"hidden": 20, "place": (2, 4)}}


def forward(layer, x):
    w = weights(layer)
    mu_k, mu_r = w["present"]

    def row(x):
        k = np.maximum(mixed(x, mu_k) @ w["key_proj.weight"].T, 0) ** 2
        r = sigmoid(mixed(x, mu_r) @ w["receptance_proj.weight"].T)
        return r * (k @ w["out_proj.weight"].T)

    return rows(row, x)
