"""The mLSTM without a stabiliser: C = σ(f) C + eⁱ k vᵀ, n likewise, o = Cᵀq / max(|nᵀq|, 1), q scaled.

Beck et al. 2024, arXiv:2405.04517, eq. 19-27. A state (C, n, m) stands for (C eᵐ, n eᵐ), which is also what comes back.
The library adds eps to the normaliser after dividing by e^{m_t}, m_t the largest exponent so far: here eps · e^{m_t}.
"""

from __future__ import annotations

import numpy as np


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
