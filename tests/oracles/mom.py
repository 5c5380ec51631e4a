"""Mixture of memories, from arXiv:2502.13685, section 3: every memory reads its own list of steps, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, sigmoid, silu, softplus, unit, weights

VARIANTS = {
    "plain": {"heads": 2, "key_size": 6, "value_size": 8},
    "one of three": {
        "heads": 1,
        "key_size": 5,
        "value_size": 7,
        "memories": 3,
        "top_k": 1,
        "shared": False,
        "conv_width": 3,
        "negative_eigenvalues": True,
    },
}


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, K, V = size.heads, size.key_size, size.value_size
    projections = np.split(w["memory_proj.weight"], layer.count)

    def memory(projection, x):
        """One gated delta rule over x (T, D): (T, H, V)."""
        k, v, b, a = np.split(x @ projection.T, np.cumsum([H * K, H * V, H]), axis=1)
        qkv = silu(causal_conv(np.concatenate([x @ w["q_proj.weight"].T, k, v], 1), w["conv.weight"]))
        q, k, v = np.split(qkv, [H * K, 2 * H * K], axis=1)
        q, k, v = q.reshape(-1, H, K), k.reshape(-1, H, K), v.reshape(-1, H, V)
        alpha = np.exp(-np.exp(w["decay.A_log"]) * softplus(a + w["decay.dt_bias"]))
        beta, out = sigmoid(b) * (2 if layer.negative_eigenvalues else 1), np.zeros((len(x), H, V))
        for h in range(H):
            S = np.zeros((K, V))
            for t in range(len(x)):
                key = unit(k[t, h])
                S = alpha[t, h] * S
                S = S + beta[t, h] * np.outer(key, v[t, h] - S.T @ key)
                out[t, h] = S.T @ unit(q[t, h]) / np.sqrt(K)
        return out

    def row(x):
        p = np.exp(x @ w["router.weight"].T)
        best = np.argsort(-p, axis=1)[:, : layer.top_k]
        chosen = np.zeros_like(p)
        np.put_along_axis(chosen, best, np.take_along_axis(p, best, 1), 1)
        chosen /= chosen.sum(1, keepdims=True)
        o = np.zeros((len(x), H, V))
        for m in range(layer.memories):
            sent = chosen[:, m] > 0
            if sent.any():
                o[sent] += chosen[sent, m, None, None] * memory(projections[m], x[sent])
        if layer.shared:
            o += memory(projections[-1], x)
        gate = silu(x @ w["gate_proj.weight"].T)
        return (rms_norm(o, w["norm.norm.weight"], 1e-5).reshape(len(x), -1) * gate) @ w["out_proj.weight"].T

    return rows(row, x)
