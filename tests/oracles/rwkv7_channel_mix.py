"""The feed-forward of RWKV-7, from arXiv:2503.14456, section 4, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, shift, weights

VARIANTS = {"plain": {}, "deep": {"hidden": 20, "place": (2, 4)}}


def forward(layer, x):
    w = weights(layer)

    def row(x):
        mixed = x + (shift(x) - x) * w["shift_mix"]
        return np.maximum(mixed @ w["k_proj.weight"].T, 0) ** 2 @ w["out_proj.weight"].T

    return rows(row, x)
