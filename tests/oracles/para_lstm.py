"""ParaLSTM, eq. 3.1b of arXiv:2510.21450: a float64 loop over single numbers."""

from __future__ import annotations

import math

import numpy as np


def para_lstm(u, weight, peephole, h, c):
    """The gates are in the order f, o, candidate."""
    u, weight, peephole, h, c = (np.array(x, dtype=np.float64) for x in (u, weight, peephole, h, c))
    outputs = np.zeros(u.shape[:2] + u.shape[3:])
    for b, t, j in np.ndindex(outputs.shape):
        drive = weight[:, j] * h[b, j] + u[b, t, :, j]
        forget = 1 / (1 + math.exp(-(drive[0] + peephole[0, j] * c[b, j])))
        c[b, j] = forget * c[b, j] + (1 - forget) * math.tanh(drive[2])
        output = 1 / (1 + math.exp(-(drive[1] + peephole[1, j] * c[b, j])))
        outputs[b, t, j] = h[b, j] = output * math.tanh(c[b, j])
    return outputs, (h, c)
