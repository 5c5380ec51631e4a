"""Linear attention as attention: o_t = scale · Σ_{s≤t} (q_tᵀ diag(Π_{s<r≤t} d_r) k_s) v_s (arXiv:2312.06635, eq. 3 unrolled).

With a bonus the sum runs over s < t with decays up to t − 1, and the present comes in as q_tᵀ diag(u) k_t v_t
(RWKV-5/6, arXiv:2404.05892, eq. 16). A state is one more past term.
"""

from __future__ import annotations

import numpy as np


def oracle(q, k, v, state, scale, log_decay=None, decay=None, bonus=None):
    batch, steps, heads, value = v.shape
    group = heads // q.shape[2]
    d = decay if decay is not None else np.ones((batch, steps, heads)) if log_decay is None else np.exp(log_decay)
    d = np.broadcast_to(d if d.ndim == 4 else d[..., None], (batch, steps, heads, q.shape[3]))
    o = np.zeros_like(v)
    last = np.array(state)
    for j in range(heads):
        query, key, decays = q[:, :, j // group], k[:, :, j // group], d[:, :, j]
        for t in range(steps):
            seen, end = (t + 1, t + 1) if bonus is None else (t, t)
            for s in range(seen):
                weight = (query[:, t] * np.prod(decays[:, s + 1 : end], axis=1) * key[:, s]).sum(-1)
                o[:, t, j] += scale * weight[:, None] * v[:, s, j]
            faded = np.prod(decays[:, :end], axis=1)
            o[:, t, j] += scale * np.einsum("bk,bkv->bv", query[:, t] * faded, state[:, j])
            if bonus is not None:
                o[:, t, j] += scale * (query[:, t] * bonus[j] * key[:, t]).sum(-1)[:, None] * v[:, t, j]
        last[:, j] = np.prod(decays, axis=1)[..., None] * state[:, j]
        for s in range(steps):
            last[:, j] += (np.prod(decays[:, s + 1 :], axis=1) * key[:, s])[..., None] * v[:, s, j, None, :]
    return o, (last,)
