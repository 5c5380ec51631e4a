"""Log-linear attention, from arXiv:2506.04761: a matrix of weights over all pairs of steps, in float64.

Around GLA and gated DeltaNet: the transition from step s to t is a product of matrices, and λ of the bucket in which s
lies for t stands before it.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, sigmoid, silu, softplus, unit, weights

VARIANTS = {
    "gla": {"inner": "gla", "options": {"heads": 1, "value_heads": 2, "key_size": 5, "value_size": 6}, "levels": 8},
    "delta rule": {"inner": "gated_delta_net", "options": {"heads": 2, "key_size": 6, "value_size": 4}, "levels": 9},
}


def bucket(t, s):
    """The bucket of s for t: peel the largest power of two off the front of [0, t) as often as it fits."""
    if s == t:
        return 0
    start, left = 0, t
    while True:
        size = 1 << (left.bit_length() - 1)
        if s < start + size:
            return size.bit_length()
        start, left = start + size, left - size


def forward(layer, x):
    w = {n.removeprefix("inner."): p for n, p in weights(layer).items()}
    size, delta = layer.inner.size, layer.inner.kind == "gated_delta_net"
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def row(x):
        T, qkv = len(x), x @ w["qkv_proj.weight"].T
        if delta:
            qkv = silu(causal_conv(qkv, w["conv.weight"]))
        q, k, v = np.split(qkv, [H * K, 2 * H * K], axis=1)
        q, k, v = q.reshape(T, H, K), k.reshape(T, H, K), v.reshape(T, Hv, V)
        if delta:
            q, k = unit(q), unit(k)
            a, b = np.split(x @ w["ab_proj.weight"].T, 2, axis=1)
            alpha = np.exp(-np.exp(w["decay.A_log"]) * softplus(a + w["decay.dt_bias"]))
            beta = sigmoid(b)
        else:
            logits = x @ w["decay_proj.0.weight"].T @ w["decay_proj.1.weight"].T + w["decay_proj.1.bias"]
            alpha, beta = sigmoid(logits).reshape(T, Hv, K) ** (1 / 16), np.ones((T, Hv))
        lam = softplus(w["level_scale"] * (x @ w["level_proj.weight"].T).reshape(T, Hv, -1))
        out = np.zeros((T, Hv, V))
        for j in range(Hv):
            i = j // (Hv // H)
            for t in range(T):
                to = q[t, i] / np.sqrt(K)  # the query, brought back from t to s + 1
                for s in range(t, -1, -1):
                    out[t, j] += lam[t, j, bucket(t, s)] * beta[s, j] * (to @ k[s, i]) * v[s, j]
                    if delta:
                        to = to - beta[s, j] * (to @ k[s, i]) * k[s, i]
                    to = alpha[s, j] * to
        gate = silu(x @ w["gate_proj.weight"].T)
        return (rms_norm(out, w["norm.norm.weight"], 1e-5).reshape(T, -1) * gate) @ w["out_proj.weight"].T

    return rows(row, x)
