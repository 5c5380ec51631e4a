"""h_t = (Π_{s≤t} a_s) h_0 + Σ_{s≤t} (Π_{s<r≤t} a_r) b_s, the sum that solves the recurrence (arXiv:1709.04057)."""

from __future__ import annotations

import numpy as np


def oracle(a, b, state):
    outputs = []
    for t in range(a.shape[1]):
        total = np.prod(a[:, : t + 1], axis=1) * state
        for s in range(t + 1):
            total = total + np.prod(a[:, s + 1 : t + 1], axis=1) * b[:, s]
        outputs.append(total)
    h = np.stack(outputs, 1) if outputs else b.copy()
    return h, (outputs[-1] if outputs else state,)
