"""Retention in its parallel form (arXiv:2307.08621, eq. 5): (Q Kᵀ ⊙ D) V with complex rotations, D_nm = γ^{n−m}."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, silu, weights

VARIANTS = {
    "plain": {"heads": 4},
    "grouped": {"heads": 2, "value_heads": 4, "key_size": 6, "value_size": 5, "rope_base": 100.0},
    "rms": {"heads": 2, "norm": "rms", "norm_eps": 0.01},
}


def turned(x, base):
    """(T, H, K): the pair (i, i + K/2) as a complex number, times e^{i t θ}."""
    half = x.shape[-1] // 2
    theta = base ** (-np.arange(half) / half)
    return (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.arange(len(x))[:, None, None] * theta)


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def norm(o):
        if layer.centred:
            return (o - o.mean(-1, keepdims=True)) / np.sqrt(o.var(-1, keepdims=True) + layer.norm.norm.eps)
        return rms_norm(o, w["norm.norm.weight"], layer.norm.norm.eps)

    def row(x):
        steps = np.arange(len(x))
        distance = steps[:, None] - steps
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        q, k = (turned(z.reshape(-1, H, K), layer.rope_base) for z in (q, k))
        v = v.reshape(-1, Hv, V)
        out = np.zeros((len(x), Hv, V))
        for head in range(Hv):
            source = head // (Hv // H)
            gamma = 1 - 2.0 ** (-5 - head)
            D = np.where(distance >= 0, gamma ** np.maximum(distance, 0), 0)
            scores = (q[:, source] @ k[:, source].conj().T).real / np.sqrt(K)
            out[:, head] = norm((scores * D) @ v[:, head])
        gated = out.reshape(len(x), -1) * silu(x @ w["gate_proj.weight"].T)
        return gated @ w["out_proj.weight"].T

    return rows(row, x)
