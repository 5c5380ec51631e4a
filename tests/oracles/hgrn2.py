"""HGRN2, from arXiv:2404.07904, eq. 3–5: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, sigmoid, silu, weights

VARIANTS = {
    "plain": {"heads": 2},
    "lower bound": {"heads": 4, "lower_bound": 0.3},
    "odd sizes": {"heads": 3, "key_size": 5, "value_size": 7, "lower_bound": 0.9, "norm_eps": 0.01},
}


def forward(layer, x):
    w, size, gamma = weights(layer), layer.size, layer.bound.fixed or 0.0
    H, K, V = size.heads, size.key_size, size.value_size

    def row(x):
        q, gate, v = np.split(x @ w["qfv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        q, f = silu(q), gamma + (1 - gamma) * sigmoid(gate)
        out = np.zeros((len(x), H * V))
        for head in range(H):
            keys, values = slice(head * K, (head + 1) * K), slice(head * V, (head + 1) * V)
            S = np.zeros((K, V))
            for t in range(len(x)):
                S = np.diag(f[t, keys]) @ S + np.outer(1 - f[t, keys], v[t, values])
                out[t, values] = S.T @ q[t, keys]
        return rms_norm(out, w["norm.weight"], layer.norm.eps) @ w["out_proj.weight"].T

    return rows(row, x)
