"""M²RNN from arXiv:2603.14360: a float64 loop over sequences, times and heads."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, silu, softplus, weights


def m2rnn(q, k, v, f, weight, state):
    q, k, v, f, weight, state = (np.array(x, dtype=np.float64) for x in (q, k, v, f, weight, state))
    outputs = np.zeros(v.shape)
    group = v.shape[2] // q.shape[2]
    for b, t, j in np.ndindex(v.shape[:3]):
        candidate = np.tanh(state[b, j] @ weight[j] + np.outer(k[b, t, j // group], v[b, t, j]))
        state[b, j] = f[b, t, j] * state[b, j] + (1 - f[b, t, j]) * candidate
        outputs[b, t, j] = q[b, t, j // group] @ state[b, j]
    return outputs, state


VARIANTS = {
    "plain": {"heads": 2},
    "grouped": {"heads": 2, "value_heads": 4, "key_size": 6, "value_size": 5, "conv_width": 3},
}


def forward(layer, x):
    """The authors' block: convolution, forget gate, memory, a direct path, gate and norm."""
    w, size = weights(layer), layer.size

    def row(x):
        qkv = silu(causal_conv(x @ w["qkv_proj.weight"].T, w["conv.weight"]))
        q, k, v = np.split(qkv, [size.heads * size.key_size, 2 * size.heads * size.key_size], axis=1)
        q, k = (t.reshape(len(x), size.heads, -1) for t in (q, k))
        v = v.reshape(len(x), size.value_heads, -1)
        f = np.exp(-np.exp(w["decay.A_log"]) * softplus(x @ w["f_proj.weight"].T + w["decay.dt_bias"]))
        start = np.zeros((1, size.value_heads, size.key_size, size.value_size))
        o = m2rnn(q[None], k[None], v[None], f[None], w["cell.weight"], start)[0][0] + w["D"] * v
        gated = o.reshape(len(x), -1) * silu(x @ w["gate_proj.weight"].T)
        return rms_norm(gated, w["norm.weight"], 1e-5) @ w["out_proj.weight"].T

    return rows(row, x)
