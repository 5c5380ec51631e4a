"""Forgetting attention, from arXiv:2503.02130: one query at a time, its weights as products of gates, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, shift, sigmoid, weights

VARIANTS = {
    "plain": {"heads": 2},
    "grouped": {"heads": 4, "kv_heads": 2, "key_size": 5, "qk_norm": True, "gate": True, "norm_eps": 0.01},
    "pro": {"heads": 2, "pro": True},
}


def forward(layer, x):
    w, H, Hkv, K = weights(layer), layer.heads, layer.kv_heads, layer.key_size

    def row(x):
        q = (x @ w["q_proj.weight"].T).reshape(-1, H, K)
        kv = (x @ w["kv_proj.weight"].T).reshape(-1, 2 * Hkv, K)
        if "shift_proj.weight" in w:
            a = sigmoid(x @ w["shift_proj.weight"].T)[:, :, None]
            kv = a * shift(kv) + (1 - a) * kv
        k, v = kv[:, :Hkv], kv[:, Hkv:]
        if "q_norm.weight" in w:
            q = rms_norm(q, w["q_norm.weight"], layer.q_norm.eps)
            k = rms_norm(k, w["k_norm.weight"], layer.q_norm.eps)
        f = sigmoid(x @ w["forget_proj.weight"].T + w["forget_proj.bias"])
        o = np.zeros((len(x), H, K))
        for t in range(len(x)):
            for h in range(H):
                i = h // (H // Hkv)
                kept = np.array([np.prod(f[s + 1 : t + 1, h]) for s in range(t + 1)])
                weight = np.exp(k[: t + 1, i] @ q[t, h] / np.sqrt(K)) * kept
                o[t, h] = weight @ v[: t + 1, i] / weight.sum()
        if "norm.weight" in w:
            o = rms_norm(o, w["norm.weight"], layer.norm.eps)
        o = o.reshape(len(x), -1)
        if "gate_proj.weight" in w:
            o = o * sigmoid(x @ w["gate_proj.weight"].T)
        return o @ w["out_proj.weight"].T

    return rows(row, x)
