"""BASED's linear attention as attention with weights 1 + s + s²/2, from arXiv:2402.18668, one query at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {
    "plain": {"heads": 2, "key_size": 4},
    "grouped": {"heads": 1, "value_heads": 3, "key_size": 3, "value_size": 5},
}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def row(x):
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        q, k, v = q.reshape(-1, H, K), k.reshape(-1, H, K), v.reshape(-1, Hv, V)
        out = np.zeros((len(x), Hv, V))
        for t in range(len(x)):
            for j in range(Hv):
                s = k[: t + 1, j // (Hv // H)] @ q[t, j // (Hv // H)] / np.sqrt(K)
                weight = 1 + s + s**2 / 2
                out[t, j] = weight @ v[: t + 1, j] / weight.sum()
        return out.reshape(len(x), -1) @ w["out_proj.weight"].T

    return rows(row, x)
