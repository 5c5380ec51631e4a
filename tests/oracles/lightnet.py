"""LightNet, from arXiv:2405.21022: every row of the memory as an average of the values, one query at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, silu, weights

VARIANTS = {"plain": {"heads": 2}, "odd sizes": {"heads": 1, "key_size": 5, "value_size": 7, "gate_rank": 3}}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, K, V = size.heads, size.key_size, size.value_size

    def row(x):
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        q, k, v = silu(q).reshape(-1, H, K), np.exp(k).reshape(-1, H, K), v.reshape(-1, H, V)
        gate = silu(x @ w["gate_proj.down.weight"].T @ w["gate_proj.up.weight"].T)
        out = np.zeros((len(x), H, V))
        for t in range(len(x)):
            for h in range(H):
                share = k[: t + 1, h] / k[: t + 1, h].sum(0)
                out[t, h] = (q[t, h] / np.sqrt(K)) @ (share.T @ v[: t + 1, h])
        return (rms_norm(out.reshape(len(x), -1), w["norm.weight"], 1e-5) * gate) @ w["out_proj.weight"].T

    return rows(row, x)
