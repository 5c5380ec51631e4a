"""Gated DeltaNet, from arXiv:2412.06464, eq. 10 and figure 1: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, sigmoid, silu, softplus, unit, weights

VARIANTS = {
    "plain": {"heads": 2},
    "grouped, negative": {
        "heads": 2,
        "value_heads": 4,
        "key_size": 8,
        "value_size": 5,
        "conv_width": 3,
        "negative_eigenvalues": True,
        "norm_eps": 0.01,
    },
}


def forward(layer, x):
    w = weights(layer)
    size = layer.size
    heads, value_heads, K, V = size.heads, size.value_heads, size.key_size, size.value_size
    beta_scale = 2 if layer.negative_eigenvalues else 1

    def row(x):
        qkv = silu(causal_conv(x @ w["qkv_proj.weight"].T, w["conv.weight"]))
        q, k, v = np.split(qkv, [heads * K, 2 * heads * K], axis=1)
        a, b = np.split(x @ w["ab_proj.weight"].T, 2, axis=1)
        alpha = np.exp(-np.exp(w["decay.A_log"]) * softplus(a + w["decay.dt_bias"]))
        beta = beta_scale * sigmoid(b)
        gate = silu(x @ w["gate_proj.weight"].T)
        out = np.zeros((len(x), value_heads * V))
        for head in range(value_heads):
            source = head // (value_heads // heads)
            S = np.zeros((K, V))
            for t in range(len(x)):
                kt = unit(k[t, source * K : (source + 1) * K])
                qt = unit(q[t, source * K : (source + 1) * K])
                vt = v[t, head * V : (head + 1) * V]
                S = alpha[t, head] * (np.eye(K) - beta[t, head] * np.outer(kt, kt)) @ S + beta[t, head] * np.outer(
                    kt, vt
                )
                o = rms_norm(S.T @ qt / np.sqrt(K), w["norm.norm.weight"], layer.norm.norm.eps)
                out[t, head * V : (head + 1) * V] = o * gate[t, head * V : (head + 1) * V]
        return out @ w["out_proj.weight"].T

    return rows(row, x)
