"""URPE attention, from arXiv:2205.13401: one query at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights
from tests.oracles.relu_attention import attention

VARIANTS = {
    "plain": {"heads": 2},
    "grouped": {"heads": 4, "kv_heads": 2, "key_size": 6, "distances": 5, "rope_base": 50.0},
}


def forward(layer, x):
    scale = weights(layer)["scale"]

    def weigh(scores, head):
        share = np.exp(scores - scores.max())
        back = np.arange(len(scores))[::-1]
        return scale[head, np.minimum(back, scale.shape[1] - 1)] * share / share.sum()

    return rows(lambda x: attention(layer, x, weigh), x)
