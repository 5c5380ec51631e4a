"""The mLSTM without a stabiliser: C = σ(f) C + eⁱ k vᵀ, n likewise, o = Cᵀq / max(|nᵀq|, 1), q scaled.

Beck et al. 2024, arXiv:2405.04517, eq. 19-27. A state (C, n, m) stands for (C eᵐ, n eᵐ), which is also what comes back.
The library adds eps to the normaliser after dividing by e^{m_t}, m_t the largest exponent so far: here eps · e^{m_t}.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {"plain": {"heads": 2}, "uneven": {"heads": 2, "key_size": 5, "value_size": 6, "gate_soft_cap": 3.0}}


def oracle(q, k, v, i, f, state, scale, eps):
    C, n = (part * np.exp(state[2]).reshape(state[2].shape + (1,) * (part.ndim - 2)) for part in state[:2])
    log_f = -np.log1p(np.exp(-f))
    o = np.zeros_like(v)
    for t in range(v.shape[1]):
        forget, enter = np.exp(log_f[:, t]), np.exp(i[:, t])
        C = forget[..., None, None] * C + enter[..., None, None] * k[:, t, :, :, None] * v[:, t, :, None, :]
        n = forget[..., None] * n + enter[..., None] * k[:, t]
        exponents = [state[2] + log_f[:, : t + 1].sum(1)]
        exponents += [i[:, s] + log_f[:, s + 1 : t + 1].sum(1) for s in range(t + 1)]
        query = scale * q[:, t]
        bottom = np.maximum(np.abs((n * query).sum(-1)), 1.0) + eps * np.exp(np.max(exponents, axis=0))
        o[:, t] = (C * query[..., None]).sum(-2) / bottom[..., None]
    return o, (C, n)


def forward(layer, x):
    """The layer, from arXiv:2503.13427, section 2 and figure 2, by the recurrence above."""
    w = weights(layer)
    heads, K, V = layer.size.heads, layer.size.key_size, layer.size.value_size
    start = np.zeros((1, heads, K, V)), np.zeros((1, heads, K)), np.zeros((1, heads))

    def row(x):
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [heads * K, 2 * heads * K], axis=1)
        q, k, v = (part.reshape(1, len(x), heads, -1) for part in (q, k, v))
        gates = layer.gate_soft_cap * np.tanh((x @ w["if_proj.weight"].T + w["if_proj.bias"]) / layer.gate_soft_cap)
        i, f = np.split(gates[None], 2, axis=2)
        o = oracle(q, k, v, i, f, start, K**-0.5, 1e-6)[0][0]
        o = (o - o.mean(-1, keepdims=True)) / np.sqrt(o.var(-1, keepdims=True) + 1e-6)
        gate = sigmoid(x @ w["gate_proj.weight"].T)
        return (o.reshape(len(x), -1) * w["norm_weight"] * gate) @ w["out_proj.weight"].T

    return rows(row, x)
