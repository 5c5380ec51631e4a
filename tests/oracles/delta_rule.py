"""S_t = (I − β_t k_t k_tᵀ) diag(d_t) S_{t−1} + β_t k_t v_tᵀ with the matrices written out, one head and row at a time.

Yang et al. 2024, arXiv:2412.06464, eq. 10, transposed; the vector decay as in Kimi Linear, arXiv:2510.26692, eq. 1.
"""

from __future__ import annotations

import numpy as np


def oracle(q, k, v, beta, state, scale, log_decay=None, decay=None):
    batch, steps, heads, _ = v.shape
    size, group = q.shape[3], heads // q.shape[2]
    o, last = np.zeros_like(v), np.array(state)
    for row in range(batch):
        for j in range(heads):
            S = np.array(state[row, j])
            for t in range(steps):
                key, rate = k[row, t, j // group], beta[row, t, j]
                d = 1.0
                if log_decay is not None:
                    d = np.exp(log_decay[row, t, j])
                elif decay is not None:
                    d = decay[row, t, j]
                gate = np.diag(np.broadcast_to(d, size))
                S = (np.eye(size) - rate * np.outer(key, key)) @ gate @ S + rate * np.outer(key, v[row, t, j])
                o[row, t, j] = scale * q[row, t, j // group] @ S
            last[row, j] = S
    return o, (last,)
