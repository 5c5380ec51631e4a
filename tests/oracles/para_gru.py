"""ParaGRU, eq. 3.1a of arXiv:2510.21450: a float64 loop over single numbers."""

from __future__ import annotations

import math

import numpy as np


def para_gru(u, weight, h):
    u, weight, h = (np.array(x, dtype=np.float64) for x in (u, weight, h))
    outputs = np.zeros(u.shape[:2] + u.shape[3:])
    for b, t, j in np.ndindex(outputs.shape):
        old = h[b, j]
        update = 1 / (1 + math.exp(-(weight[0, j] * old + u[b, t, 0, j])))
        reset = 1 / (1 + math.exp(-(weight[1, j] * old + u[b, t, 1, j])))
        candidate = math.tanh(weight[2, j] * (old * reset) + u[b, t, 2, j])
        outputs[b, t, j] = h[b, j] = (1 - update) * old + update * candidate
    return outputs, h
