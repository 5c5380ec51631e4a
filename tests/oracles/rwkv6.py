"""RWKV-6, from arXiv:2404.05892, section 4.2: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, shift, silu, weights

VARIANTS = {
    "plain": {"heads": 2},
    "odd sizes": {
        "heads": 2,
        "key_size": 7,
        "value_size": 5,
        "mix_rank": 3,
        "decay_rank": 4,
        "norm_eps": 0.01,
        "place": (1, 3),
    },
}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, K, V = size.heads, size.key_size, size.value_size

    def lora(index, x, before):
        """ddlerp's share: μ_□ + tanh((x + (before − x) μ_x) A_□) B_□."""
        rank = len(w["shift.down.weight"]) // 5
        part = slice(index * rank, (index + 1) * rank)
        hidden = np.tanh((x + (before - x) * w["shift.all"]) @ w["shift.down.weight"][part].T)
        return w["shift.each"][index] + hidden @ w["shift.up.weight"][:, part].T

    def row(x):
        before = shift(x)
        x_r, x_w, x_k, x_v, x_g = (x + (before - x) * lora(i, x, before) for i in range(5))
        r, k, v = x_r @ w["r_proj.weight"].T, x_k @ w["k_proj.weight"].T, x_v @ w["v_proj.weight"].T
        hidden = np.tanh(x_w @ w["decay_proj.down.weight"].T)
        decay = np.exp(-np.exp(hidden @ w["decay_proj.up.weight"].T + w["decay_proj.up.bias"]))
        gate = silu(x_g @ w["gate_proj.weight"].T)
        out = np.zeros((len(x), H * V))
        for h in range(H):
            keys, values, S = slice(h * K, (h + 1) * K), slice(h * V, (h + 1) * V), np.zeros((K, V))
            for t in range(len(x)):
                kv = np.outer(k[t, keys], v[t, values])
                o = r[t, keys] @ (np.diag(w["bonus"][h]) @ kv + S)
                S = np.diag(decay[t, keys]) @ S + kv
                o = (o - o.mean()) / np.sqrt(o.var() + layer.norm.eps)
                out[t, values] = o * w["norm.weight"][values] + w["norm.bias"][values]
        return (out * gate) @ w["out_proj.weight"].T

    return rows(row, x)
