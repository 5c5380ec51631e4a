"""Kimi Delta Attention, from arXiv:2510.26692, eq. 1: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, sigmoid, silu, softplus, unit, weights

VARIANTS = {
    "plain": {"heads": 2},
    "grouped, bounded": {
        "heads": 2,
        "value_heads": 4,
        "key_size": 6,
        "value_size": 5,
        "conv_width": 3,
        "gate_rank": 7,
        "gate_bias": False,
        "decay_bound": -5.0,
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
        logits = x @ w["decay_proj.down.weight"].T @ w["decay_proj.up.weight"].T + w["decay.dt_bias"]
        rate = np.exp(w["decay.A_log"])
        beta = sigmoid(x @ w["beta_proj.weight"].T) * (2 if layer.negative_eigenvalues else 1)
        gate = sigmoid(x @ w["gate_proj.down.weight"].T @ w["gate_proj.up.weight"].T + w.get("gate_proj.up.bias", 0))
        out = np.zeros((len(x), Hv * V))
        for j in range(Hv):
            keys, values = slice(j // (Hv // H) * K, (j // (Hv // H) + 1) * K), slice(j * V, (j + 1) * V)
            S = np.zeros((K, V))
            for t in range(len(x)):
                a = logits[t, j * K : (j + 1) * K]
                if layer.decay_bound is None:
                    alpha = np.exp(-rate[j] * softplus(a))
                else:
                    alpha = np.exp(layer.decay_bound * sigmoid(rate[j] * a))
                kt, qt, b = unit(k[t, keys]), unit(q[t, keys]), beta[t, j]
                S = (np.eye(K) - b * np.outer(kt, kt)) @ np.diag(alpha) @ S + b * np.outer(kt, v[t, values])
                out[t, values] = rms_norm(S.T @ qt / np.sqrt(K), w["norm.norm.weight"], layer.norm.norm.eps)
        return (out * gate) @ w["out_proj.weight"].T

    return rows(row, x)
