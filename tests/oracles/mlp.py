"""The plain feed-forward, arXiv:1706.03762, eq. 2, with GELU by the error function (arXiv:1606.08415)."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "biased": {"bias": True, "hidden": 20}, "squared": {"activation": "relu_squared"}}

ACTIVATIONS = {
    "gelu": np.vectorize(lambda x: 0.5 * x * (1 + erf(x / sqrt(2)))),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def forward(layer, x):
    w = weights(layer)
    act = ACTIVATIONS["relu_squared" if layer.activation.__name__ == "relu_squared" else "gelu"]
    return rows(lambda row: linear(w, "out_proj", act(linear(w, "in_proj", row))), x)
