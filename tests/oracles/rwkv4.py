"""RWKV-4's time mix, from arXiv:2305.13048, eq. 11–18: every weighted average computed anew, without a stabiliser."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {"plain": {}, "a late block": {"size": 20, "place": (2, 4)}}


def mixed(x, mu):
    """μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}, the step before the first being zero."""
    return mu * x + (1 - mu) * np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def forward(layer, x):
    w = weights(layer)
    mu_k, mu_v, mu_r = w["present"]
    rate = np.exp(w["decay"])

    def row(x):
        k, v = mixed(x, mu_k) @ w["key_proj.weight"].T, mixed(x, mu_v) @ w["value_proj.weight"].T
        r = sigmoid(mixed(x, mu_r) @ w["receptance_proj.weight"].T)
        out = np.zeros_like(v)
        for t in range(len(x)):
            past = np.exp(k[:t] - np.arange(t - 1, -1, -1)[:, None] * rate)
            present = np.exp(w["bonus"] + k[t])
            out[t] = ((past * v[:t]).sum(0) + present * v[t]) / (past.sum(0) + present)
        return (r * out) @ w["out_proj.weight"].T

    return rows(row, x)
