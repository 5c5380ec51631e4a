"""The sLSTM without its stabiliser, from equations 8 to 14 of arXiv:2405.04517, forget gate a sigmoid: a float64 loop.

c and n are the paper's own, c·eᵐ and n·eᵐ of a stabilised state.
"""

from __future__ import annotations

import numpy as np


def slstm(u, weight, h, c, n):
    """u (B, T, 4, D) in the order i, f, z, o; weight (4, H, d, d); h, c, n (B, D). Gives h over time and (h, c, n)."""
    u, weight, h, c, n = (np.array(x, dtype=np.float64) for x in (u, weight, h, c, n))
    batch, steps, _, width = u.shape
    heads, d = weight.shape[1:3]
    outputs = np.zeros((batch, steps, width))
    for b in range(batch):
        for t in range(steps):
            gates = u[b, t].copy()
            for gate in range(4):
                for head in range(heads):
                    part = slice(head * d, (head + 1) * d)
                    gates[gate, part] += weight[gate, head] @ h[b, part]
            i, f = np.exp(gates[0]), 1 / (1 + np.exp(-gates[1]))
            c[b] = f * c[b] + i * np.tanh(gates[2])
            n[b] = f * n[b] + i
            h[b] = c[b] / n[b] / (1 + np.exp(-gates[3]))
            outputs[b, t] = h[b]
    return outputs, (h, c, n)
