"""M²RNN from arXiv:2603.14360: a float64 loop over sequences, times and heads."""

from __future__ import annotations

import numpy as np


def m2rnn(q, k, v, f, weight, state):
    q, k, v, f, weight, state = (np.array(x, dtype=np.float64) for x in (q, k, v, f, weight, state))
    outputs = np.zeros(v.shape)
    group = v.shape[2] // q.shape[2]
    for b, t, j in np.ndindex(v.shape[:3]):
        candidate = np.tanh(state[b, j] @ weight[j] + np.outer(k[b, t, j // group], v[b, t, j]))
        state[b, j] = f[b, t, j] * state[b, j] + (1 - f[b, t, j]) * candidate
        outputs[b, t, j] = q[b, t, j // group] @ state[b, j]
    return outputs, state
