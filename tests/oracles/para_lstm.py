"""ParaLSTM, eq. 3.1b of arXiv:2510.21450: a float64 loop over single numbers."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.numpy_parts import blocks, causal_conv, rms_norm, rows, silu, weights


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


VARIANTS = {"plain": {}, "heads, no clip": {"heads": 4, "state_size": 24, "clip": None, "conv_width": 3}}


def forward(layer, x):
    """The block of figure 9: convolution, cell, gated norm, between two projections."""
    w = weights(layer)
    limit = np.inf if layer.cell.clip is None else layer.cell.clip
    a, p = (np.clip(w[f"cell.{name}"], -limit, limit) for name in ("weight_hh", "peephole"))
    matrices = np.concatenate([blocks(gate) for gate in w["cell.weight_ih"]])

    def row(u):
        x, z = np.split(u @ w["in_proj.weight"].T, 2, axis=1)
        x = silu(causal_conv(x, w["conv.weight"], w["conv.bias"]))
        driven = (x @ matrices.T).reshape(len(x), 3, -1) + w["cell.bias"]
        zero = np.zeros((1, x.shape[1]))
        h = para_lstm(driven[None], a, p, zero, zero)[0][0]
        return (rms_norm(h, w["norm.weight"], 1e-5) * silu(z)) @ w["out_proj.weight"].T

    return rows(row, x)
