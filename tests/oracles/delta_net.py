"""DeltaNet, from arXiv:2406.06484, section 2.2: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, sigmoid, silu, unit, weights

VARIANTS = {
    "plain": {"heads": 2},
    "grouped, negative": {
        "heads": 2,
        "value_heads": 4,
        "key_size": 6,
        "value_size": 5,
        "conv_width": 3,
        "negative_eigenvalues": True,
        "norm_eps": 0.01,
    },
}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def row(x):
        qkv = silu(causal_conv(x @ w["qkv_proj.weight"].T, w["conv.weight"]))
        q, k, v = np.split(qkv, [H * K, 2 * H * K], axis=1)
        beta = sigmoid(x @ w["beta_proj.weight"].T) * (2 if layer.negative_eigenvalues else 1)
        out = np.zeros((len(x), Hv * V))
        for head in range(Hv):
            source = head // (Hv // H)
            keys, values = slice(source * K, (source + 1) * K), slice(head * V, (head + 1) * V)
            S = np.zeros((K, V))
            for t in range(len(x)):
                key, b = unit(k[t, keys]), beta[t, head]
                S = (np.eye(K) - b * np.outer(key, key)) @ S + b * np.outer(key, v[t, values])
                out[t, values] = rms_norm(S.T @ unit(q[t, keys]) / np.sqrt(K), w["norm.weight"], layer.norm.eps)
        return out @ w["out_proj.weight"].T

    return rows(row, x)
