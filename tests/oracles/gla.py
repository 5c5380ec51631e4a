"""Gated linear attention, from arXiv:2312.06635, eq. 3 and section 4.4: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, sigmoid, silu, weights

VARIANTS = {
    "plain": {"heads": 2, "norm_eps": 0.01},
    "negative": {"heads": 2, "gate_temperature": 0.5, "negative_eigenvalues": True},
    "grouped": {"heads": 2, "value_heads": 4, "key_size": 5, "value_size": 7, "gate_rank": 3, "gate_temperature": 2.0},
}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def row(x):
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        logits = x @ w["decay_proj.0.weight"].T @ w["decay_proj.1.weight"].T + w["decay_proj.1.bias"]
        alpha = sigmoid(logits) ** (1 / layer.gate_temperature)
        if layer.negative_eigenvalues:  # arXiv:2411.12537: from (0, 1) to (−1, 1)
            alpha = 2 * alpha - 1
        gate = silu(x @ w["gate_proj.weight"].T)
        out = np.zeros((len(x), Hv * V))
        for head in range(Hv):
            source = head // (Hv // H)
            keys, values = slice(source * K, (source + 1) * K), slice(head * V, (head + 1) * V)
            S = np.zeros((K, V))
            for t in range(len(x)):
                S = np.diag(alpha[t, head * K : (head + 1) * K]) @ S + np.outer(k[t, keys], v[t, values])
                o = S.T @ q[t, keys] / np.sqrt(K)
                out[t, values] = rms_norm(o, w["norm.norm.weight"], layer.norm.norm.eps) * gate[t, values]
        return out @ w["out_proj.weight"].T

    return rows(row, x)
