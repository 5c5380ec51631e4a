"""The fast weight programmer, from arXiv:2102.11174: one feature and one step at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {
    "plain": {"heads": 2},
    "wide features": {"heads": 1, "key_size": 5, "value_size": 7, "nu": 3, "negative_eigenvalues": True},
}


def features(x, nu):
    """φ_{2K(i−1)+j}(x) = relu([x, −x])_j · relu([x, −x])_{i+j}, divided by their sum."""
    r = np.maximum(np.concatenate([x, -x]), 0)
    phi = np.array([r[j] * r[(i + j) % len(r)] for i in range(1, nu + 1) for j in range(len(r))])
    return phi / phi.sum()


def forward(layer, x):
    w, size = weights(layer), layer.size
    H, K, V = size.heads, size.key_size, size.value_size

    def row(x):
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        beta = sigmoid(x @ w["beta_proj.weight"].T) * (2 if layer.negative_eigenvalues else 1)
        out = np.zeros((len(x), H * V))
        for j in range(H):
            keys, values = slice(j * K, (j + 1) * K), slice(j * V, (j + 1) * V)
            W = np.zeros((V, 2 * K * layer.nu))
            for t in range(len(x)):
                phi = features(k[t, keys], layer.nu)
                W = W + beta[t, j] * np.outer(v[t, values] - W @ phi, phi)
                out[t, values] = W @ features(q[t, keys], layer.nu) / np.sqrt(K)
        return out @ w["out_proj.weight"].T

    return rows(row, x)
