"""The sLSTM without its stabiliser, from equations 8 to 14 of arXiv:2405.04517, forget gate a sigmoid: a float64 loop.

c and n are the paper's own, c·eᵐ and n·eᵐ of a stabilised state.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import blocks, causal_conv, rows, silu, weights


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


VARIANTS = {"plain": {}, "heads": {"heads": 4, "conv_width": 3}}


def forward(layer, x):
    """The block of figure 9, up to its projections: convolution, headwise gates, the cell, a norm for each head."""
    w, heads, width = weights(layer), layer.heads, layer.width
    matrices = [blocks(gate) for gate in w["cell.weight_ih"]]

    def row(x):
        seen = silu(causal_conv(x, w["conv.weight"], w["conv.bias"]))
        sums = [source @ matrix.T for source, matrix in zip((seen, seen, x, x), matrices, strict=True)]
        u = np.stack(sums, 1) + w["cell.bias"]
        start = np.zeros((3, 1, width))
        h = slstm(u[None], w["cell.weight_hh"], *start)[0][0].reshape(len(x), heads, -1)
        centred = h - h.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return normed.reshape(len(x), width) * w["norm_weight"]

    return rows(row, x)
