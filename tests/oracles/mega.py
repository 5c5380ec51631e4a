"""MEGA, from arXiv:2209.10655, section 3, and its authors' code: each step looks for its keys, in float64.

The parts that MEGA shares with TCNCA are those after the moving average.
"""

from __future__ import annotations

import math

import numpy as np

from tests.oracles import ema
from tests.oracles.numpy_parts import rows, sigmoid, silu, weights

VARIANTS = {
    "plain": {},
    "softmax": {"state_size": 2, "key_size": 6, "value_size": 10, "chunk_size": 5, "positions": "simple"},
    "laplace": {"state_size": 2, "key_size": 4, "value_size": 9, "chunk_size": 4, "function": "laplace"},
    "laplace simple": {
        "state_size": 3,
        "key_size": 3,
        "value_size": 8,
        "chunk_size": 7,
        "function": "laplace",
        "positions": "simple",
    },
}

MEAN, DEVIATION = math.sqrt(1 / 2), math.sqrt(1 / (4 * math.pi))


def laplace(score):
    return 0.5 * (1 + math.erf((score - MEAN) / (DEVIATION * math.sqrt(2))))


def rotated(vector, position):
    """Pairs (i, i + K/2) as complex numbers, turned by position · 10000^{−i / (K/2)}."""
    half = len(vector) // 2
    turned = (vector[:half] + 1j * vector[half:]) * np.exp(1j * position * 10000.0 ** (-np.arange(half) / half))
    return np.concatenate([turned.real, turned.imag])


def gated_attention(layer, w, x, m):
    """y for one row, from x and the moving average m, each (T, D)."""
    part = layer.attention
    D, K, V, C = layer.width, part.key_size, part.value_size, part.chunk_size
    gates = m @ w["gates_proj.weight"].T + w["gates_proj.bias"]
    u, z, r, h = np.split(gates, np.cumsum([D, K, V]), axis=1)
    v = silu(x @ w["v_proj.weight"].T + w["v_proj.bias"])
    q, k = (silu(z) * w["qk_scale"][i] + w["qk_shift"][i] for i in (0, 1))
    table = w["bias.weight"]
    y = np.zeros_like(x)
    for t in range(len(x)):
        first = t - t % C
        scores = []
        for s in range(first, t + 1):
            near = table[t - s] if table.ndim == 1 else rotated(table[0], t) @ rotated(table[1], s)
            divisor = math.sqrt(K) if part.function == "softmax" else t - first + 1
            scores.append(q[t] @ k[s] / divisor + near)
        if part.function == "softmax":
            share = np.exp(scores) / np.exp(scores).sum()
        else:
            share = np.array([laplace(score) for score in scores])
        o = share @ v[first : t + 1]
        candidate = silu(h[t] + w["read_proj.weight"] @ (silu(r[t]) * o) + w["read_proj.bias"])
        gate = sigmoid(u[t])
        y[t] = gate * candidate + (1 - gate) * x[t]
    return y


def attention_weights(layer):
    return {n.removeprefix("attention."): p for n, p in weights(layer).items() if n.startswith("attention.")}


def forward(layer, x):
    m = ema.forward(layer.average, x).numpy()
    w = attention_weights(layer)
    numbers = iter(range(len(m)))
    return rows(lambda row: gated_attention(layer, w, row, m[next(numbers)]), x)
