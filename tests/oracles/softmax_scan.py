"""A softmax average over the whole past, computed anew at each time (Feng et al. 2024, arXiv:2405.13956, eq. 1).

With log decays, the logit of s at time t is logit_s + Σ_{s<r≤t} log d_r. With a bonus b (RWKV-4, arXiv:2305.13048, eq.
16) the past is seen with decays up to t − 1 and the present with logit_t + b. A state is one more past term of logit m.
"""

from __future__ import annotations

import numpy as np


def oracle(logits, values, state, log_decay=None, bonus=None):
    vector = values.ndim > logits.ndim
    spread = (lambda x: x[..., None]) if vector else (lambda x: x)
    decay = np.zeros_like(logits) if log_decay is None else log_decay
    m, u, w = state
    steps = logits.shape[1]

    def sums(end, upto):
        """Numerator and denominator over the terms before `end`, with decays before `upto`."""
        weight = np.exp(m + decay[:, :upto].sum(1))
        top, bottom = spread(weight) * u, weight * w
        for s in range(end):
            weight = np.exp(logits[:, s] + decay[:, s + 1 : upto].sum(1))
            top, bottom = top + spread(weight) * values[:, s], bottom + weight
        return top, bottom

    y = np.zeros_like(values)
    for t in range(steps):
        top, bottom = sums(t + 1, t + 1) if bonus is None else sums(t, t)
        if bonus is not None:
            weight = np.exp(logits[:, t] + bonus)
            top, bottom = top + spread(weight) * values[:, t], bottom + weight
        y[:, t] = np.where(spread(bottom) > 0, top / np.where(spread(bottom) > 0, spread(bottom), 1), 0)
    return y, sums(steps, steps)
