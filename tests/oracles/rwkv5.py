"""RWKV-5, from arXiv:2404.05892, section 4.1: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, shift, silu, weights

VARIANTS = {
    "plain": {"heads": 2},
    "odd sizes": {"heads": 2, "key_size": 7, "value_size": 5, "norm_eps": 0.01, "place": (2, 3)},
}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, K, V = size.heads, size.key_size, size.value_size

    def row(x):
        x_r, x_k, x_v, x_g = (x + (shift(x) - x) * mu for mu in w["shift_mix"])
        r, k, v = x_r @ w["r_proj.weight"].T, x_k @ w["k_proj.weight"].T, x_v @ w["v_proj.weight"].T
        decay = np.exp(-np.exp(w["decay"]))
        gate = silu(x_g @ w["gate_proj.weight"].T)
        out = np.zeros((len(x), H * V))
        for h in range(H):
            keys, values, S = slice(h * K, (h + 1) * K), slice(h * V, (h + 1) * V), np.zeros((K, V))
            for t in range(len(x)):
                kv = np.outer(k[t, keys], v[t, values])
                o = r[t, keys] @ (np.diag(w["bonus"][h]) @ kv + S)
                S = np.diag(decay[h]) @ S + kv
                o = (o - o.mean()) / np.sqrt(o.var() + layer.norm.eps)
                out[t, values] = o * w["norm.weight"][values] + w["norm.bias"][values]
        return (out * gate) @ w["out_proj.weight"].T

    return rows(row, x)
