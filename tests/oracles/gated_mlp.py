"""The gated feed-forward, arXiv:2002.05202, eq. 6."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import rows, sigmoid, silu, weights

VARIANTS = {"swish": {}, "sigmoid, biased": {"activation": "sigmoid", "bias": True, "hidden": 24}}


def forward(layer, x):
    w = weights(layer)
    act = sigmoid if "gate_up_proj.bias" in w else silu  # the two variants above

    def row(x):
        gate, up = np.split(linear(w, "gate_up_proj", x), 2, axis=-1)
        return linear(w, "out_proj", act(gate) * up)

    return rows(row, x)
