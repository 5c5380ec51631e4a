"""Aaren as what it claims to be, arXiv:2405.13956, eq. 1 with a learned query: a softmax over each whole prefix."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "heads": {"heads": 4}, "groups": {"heads": 4, "kv_heads": 2, "key_size": 5}}


def forward(layer, x):
    w = weights(layer)
    H, G, K = layer.heads, layer.kv_heads, layer.key_size

    def row(x):
        keys, values = np.split(x @ w["kv_proj.weight"].T, 2, axis=1)
        out = np.zeros((len(x), H * K))
        for head in range(H):
            shared = slice(head // (H // G) * K, (head // (H // G) + 1) * K)
            for t in range(len(x)):
                scores = np.exp(keys[: t + 1, shared] @ w["query"][head] / np.sqrt(K))
                out[t, head * K : (head + 1) * K] = scores / scores.sum() @ values[: t + 1, shared]
        return out @ w["out_proj.weight"].T

    return rows(row, x)
