"""ParaGRU, eq. 3.1a of arXiv:2510.21450: a float64 loop over single numbers."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.numpy_parts import blocks, causal_conv, rms_norm, rows, silu, weights


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


VARIANTS = {"plain": {}, "heads, no clip": {"heads": 4, "state_size": 24, "clip": None, "conv_width": 3}}


def forward(layer, x):
    """The block of figure 9: convolution, cell, gated norm, between two projections."""
    w = weights(layer)
    limit = np.inf if layer.cell.clip is None else layer.cell.clip
    a = np.clip(w["cell.weight_hh"], -limit, limit)
    matrices = np.concatenate([blocks(gate) for gate in w["cell.weight_ih"]])

    def row(u):
        x, z = np.split(u @ w["in_proj.weight"].T, 2, axis=1)
        x = silu(causal_conv(x, w["conv.weight"], w["conv.bias"]))
        driven = (x @ matrices.T).reshape(len(x), 3, -1) + w["cell.bias"]
        zero = np.zeros((1, x.shape[1]))
        h = para_gru(driven[None], a, zero)[0][0]
        return (rms_norm(h, w["norm.weight"], 1e-5) * silu(z)) @ w["out_proj.weight"].T

    return rows(row, x)
