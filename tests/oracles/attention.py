"""Softmax attention with rotary positions as complex rotations (arXiv:2104.09864, eq. 12), one query at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, weights

VARIANTS = {
    "plain": {"heads": 4},
    "grouped": {"heads": 4, "kv_heads": 2, "bias": True, "qk_norm": True},
    "window": {"heads": 2, "window": 5},
    "window of one": {"heads": 2, "window": 1},
}


def turned(x, base):
    """(T, H, D): the pair (i, i + D/2) as a complex number, times e^{i t θ}."""
    half = x.shape[-1] // 2
    theta = base ** (-2 * np.arange(half) / x.shape[-1])
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.arange(len(x))[:, None, None] * theta)
    return np.concatenate([z.real, z.imag], -1)


def forward(layer, x):
    w = weights(layer)
    heads, kv_heads, K = layer.heads, layer.kv_heads, layer.key_size

    def row(x):
        q = (x @ w["q_proj.weight"].T + w.get("q_proj.bias", 0)).reshape(len(x), heads, K)
        kv = (x @ w["kv_proj.weight"].T + w.get("kv_proj.bias", 0)).reshape(len(x), 2 * kv_heads, K)
        k, v = kv[:, :kv_heads], kv[:, kv_heads:]
        if "q_norm.weight" in w:
            q, k = rms_norm(q, w["q_norm.weight"], 1e-6), rms_norm(k, w["k_norm.weight"], 1e-6)
        q, k = turned(q, layer.rope_base), turned(k, layer.rope_base)
        out = np.zeros((len(x), heads, K))
        for t in range(len(x)):
            first = 0 if layer.window is None else max(0, t - layer.window + 1)
            for head in range(heads):
                source = head // (heads // kv_heads)
                score = k[first : t + 1, source] @ q[t, head] / np.sqrt(K)
                p = np.exp(score - score.max())
                out[t, head] = (p / p.sum()) @ v[first : t + 1, source]
        return out.reshape(len(x), -1) @ w["out_proj.weight"].T

    return rows(row, x)
