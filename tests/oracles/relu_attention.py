"""ReLU attention, from arXiv:2302.06461: one query at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {
    "plain": {"heads": 2},
    "grouped": {"heads": 4, "kv_heads": 2, "key_size": 6, "gamma": 1.7, "rope_base": 50.0},
}


def turned(x, base):
    """(T, heads, K), the pair i of step t by the angle t · base^(−2i/K)."""
    half = x.shape[-1] // 2
    by = np.exp(1j * np.outer(np.arange(len(x)), base ** (-np.arange(half) / half)))[:, None]
    pairs = (x[..., :half] + 1j * x[..., half:]) * by
    return np.concatenate([pairs.real, pairs.imag], -1)


def attention(layer, x, weigh):
    """y of one row; `weigh` maps the scores of the keys 0 … t and a head to their weights."""
    w, part = weights(layer), layer.attention
    H, Hkv, K = part.heads, part.kv_heads, part.key_size
    q = turned((x @ w["attention.q_proj.weight"].T).reshape(-1, H, K), part.rope_base)
    k, v = np.split(x @ w["attention.kv_proj.weight"].T, 2, axis=1)
    k, v = turned(k.reshape(-1, Hkv, K), part.rope_base), v.reshape(-1, Hkv, K)
    o = np.zeros((len(x), H, K))
    for t in range(len(x)):
        for h in range(H):
            i = h // (H // Hkv)
            o[t, h] = weigh(k[: t + 1, i] @ q[t, h] / np.sqrt(K), h) @ v[: t + 1, i]
    return o.reshape(len(x), -1) @ w["attention.out_proj.weight"].T


def forward(layer, x):
    def weigh(scores, _):
        return np.maximum(scores, 0) / (layer.gamma * np.sqrt(len(scores) / 2))

    return rows(lambda x: attention(layer, x, weigh), x)
