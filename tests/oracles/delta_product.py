"""DeltaProduct, from arXiv:2502.10297, eq. 4: the transition as a product of matrices, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, sigmoid, silu, softplus, unit, weights

VARIANTS = {
    "plain": {"heads": 2, "key_size": 8, "value_size": 8},
    "grouped": {"heads": 1, "value_heads": 3, "key_size": 6, "value_size": 5, "conv_width": 3, "householders": 3},
    "no decay, positive": {
        "heads": 2,
        "key_size": 5,
        "value_size": 4,
        "householders": 1,
        "decay": False,
        "negative_eigenvalues": False,
    },
}


def forward(layer, x):
    w, size, n = weights(layer), layer.size, layer.householders
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def row(x):
        qkv = silu(causal_conv(x @ w["qkv_proj.weight"].T, w["conv.weight"]))
        q, k, v = np.split(qkv, [H * K, (1 + n) * H * K], axis=1)
        q, k, v = unit(q.reshape(-1, H, K)), unit(k.reshape(-1, n, H, K)), v.reshape(-1, n, Hv, V)
        beta = sigmoid(x @ w["beta_proj.weight"].T).reshape(-1, n, Hv) * (2 if layer.negative_eigenvalues else 1)
        alpha = np.ones((len(x), Hv))
        if "decay_proj.weight" in w:
            step = softplus(x @ w["decay_proj.weight"].T + w["decay.dt_bias"])
            alpha = np.exp(-np.exp(w["decay.A_log"]) * step)
        gate = silu(x @ w["gate_proj.weight"].T)
        out = np.zeros((len(x), Hv, V))
        for j in range(Hv):
            i, S = j // (Hv // H), np.zeros((K, V))
            for t in range(len(x)):
                A, B = alpha[t, j] * np.eye(K), np.zeros((K, V))
                for m in range(n):
                    reflect = np.eye(K) - beta[t, m, j] * np.outer(k[t, m, i], k[t, m, i])
                    A = reflect @ A
                    B = reflect @ B + beta[t, m, j] * np.outer(k[t, m, i], v[t, m, j])
                S = A @ S + B
                out[t, j] = rms_norm(S.T @ q[t, i] / np.sqrt(K), w["norm.norm.weight"], 1e-5)
        return (out.reshape(len(x), -1) * gate) @ w["out_proj.weight"].T

    return rows(row, x)
