"""The recurrent linear transformer, from arXiv:2310.15719: memory and normaliser one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {
    "plain": {"heads": 2, "expand": 2},
    "odd sizes": {"heads": 1, "key_size": 5, "value_size": 3, "expand": 1, "eps": 0.01},
}


def forward(layer, x):
    w, H, K, V = weights(layer), layer.heads, layer.key_size, layer.value_size

    def row(x):
        projected = x @ w["in_proj.weight"].T + w["in_proj.bias"]
        k, q, g, v, b = np.split(projected, np.cumsum([H * K, H * K, H * K, H * V]), axis=1)
        p = (x @ w["expand_proj.weight"].T + w["expand_proj.bias"]).reshape(len(x), 3, H, -1)
        out = np.zeros((len(x), H * V))
        for h in range(H):
            keys, values = slice(h * K, (h + 1) * K), slice(h * V, (h + 1) * V)
            C = np.zeros((V, K * p.shape[-1]))
            s = np.zeros(K * p.shape[-1])
            for t in range(len(x)):
                key = np.outer(np.maximum(k[t, keys], 0), np.maximum(p[t, 0, h], 0)).ravel()
                query = np.outer(np.maximum(q[t, keys], 0), np.maximum(p[t, 1, h], 0)).ravel()
                gamma = np.outer(sigmoid(g[t, keys]), sigmoid(p[t, 2, h])).ravel()
                beta = sigmoid(b[t, values])
                C = np.outer(1 - beta, 1 - gamma) * C + np.outer(beta * v[t, values], gamma * key)
                s = (1 - gamma) * s + gamma * key
                out[t, values] = C @ query / (s @ query + layer.eps)
        return out @ w["out_proj.weight"].T + w["out_proj.bias"]

    return rows(row, x)
