"""RWKV-7's recurrence in its own orientation, wkv (V × K): wkv_t = wkv_{t−1} (diag(w) + aᵀ b) + vᵀ k, read with r.

Peng et al. 2025, arXiv:2503.14456, eq. 17, with a = −κ̂ and b = κ̂ ⊙ a of the paper.
"""

from __future__ import annotations

import numpy as np


def oracle(q, k, v, a, b, log_decay, state, scale):
    batch, steps, heads, _ = v.shape
    size, group = q.shape[3], heads // q.shape[2]
    o, last = np.zeros_like(v), np.array(state)
    for row in range(batch):
        for j in range(heads):
            wkv, i = state[row, j].T, j // group
            for t in range(steps):
                w = np.diag(np.broadcast_to(np.exp(log_decay[row, t, j]), size))
                transition = w + np.outer(a[row, t, i], b[row, t, i])
                wkv = wkv @ transition + np.outer(v[row, t, j], k[row, t, i])
                o[row, t, j] = scale * wkv @ q[row, t, i]
            last[row, j] = wkv.T
    return o, (last,)
