"""RWKV-7, from arXiv:2503.14456, section 4, in the paper's orientation wkv (V × K): one head, one step at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, shift, sigmoid, weights

VARIANTS = {
    "plain": {"heads": 2},
    "odd sizes": {
        "heads": 4,
        "value_size": 5,
        "decay_rank": 3,
        "rate_rank": 4,
        "gate_rank": 6,
        "norm_eps": 0.01,
        "place": (0, 3),
    },
}


def low_rank(w, name, x, between=lambda h: h):
    return between(x @ w[f"{name}.down.weight"].T) @ w[f"{name}.up.weight"].T + w.get(f"{name}.up.bias", 0)


def row(layer, w, x, first=None):
    """The outputs and the values of one row; `first` are the first layer's values, for a later layer."""
    H, K, V = layer.size.heads, layer.size.key_size, layer.size.value_size
    x_r, x_w, x_k, x_v, x_a, x_g = (x + (shift(x) - x) * mu for mu in w["shift_mix"])
    r, k, v = x_r @ w["r_proj.weight"].T, x_k @ w["k_proj.weight"].T, x_v @ w["v_proj.weight"].T
    if first is not None:
        v = v + (first - v) * sigmoid(low_rank(w, "value_proj", x_v))
    decay = np.exp(-np.exp(-0.5) * sigmoid(low_rank(w, "decay_proj", x_w, np.tanh)))
    a = sigmoid(low_rank(w, "rate_proj", x_a))
    gate = low_rank(w, "gate_proj", x_g, sigmoid)
    removal, written = k * w["k_k"], k * (1 + (a - 1) * w["k_a"])
    out = np.zeros((len(x), H * V))
    for h in range(H):
        keys, values, wkv = slice(h * K, (h + 1) * K), slice(h * V, (h + 1) * V), np.zeros((V, K))
        for t in range(len(x)):
            kappa = removal[t, keys] / np.linalg.norm(removal[t, keys])
            G = np.diag(decay[t, keys]) - np.outer(kappa, a[t, keys] * kappa)
            wkv = wkv @ G + np.outer(v[t, values], written[t, keys])
            p = wkv @ r[t, keys]
            p = (p - p.mean()) / np.sqrt(p.var() + layer.norm.eps)
            p = p * w["norm.weight"][values] + w["norm.bias"][values]
            out[t, values] = p + (r[t, keys] * w["r_k"][h] * written[t, keys]).sum() * v[t, values]
    return (out * gate) @ w["out_proj.weight"].T, v


def forward(layer, x):
    w = weights(layer)
    return rows(lambda x: row(layer, w, x)[0], x)
