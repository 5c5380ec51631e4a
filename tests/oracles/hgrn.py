"""HGRN, from arXiv:2311.04823, one step at a time, in float64; bounds as in flash-linear-attention's model."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, sigmoid, silu, weights

VARIANTS = {"plain": {}, "wide": {"expand": 2}, "bounded": {"lower_bound": 0.9}}


def shared_bounds(logits):
    """(layers, channels): the running sum of a softmax over the layers, less the first's share."""
    share = np.exp(logits) / np.exp(logits).sum(0)
    return share.cumsum(0) - share[0]


def forward(layer, x, bound=None):
    """With the layer's own bound, or that of its channels in a model."""
    w = weights(layer)
    if bound is None:
        bound = layer.cell.lower_bound

    def row(x):
        c, f, g = np.split(x @ w["in_proj.weight"].T, 3, axis=1)
        h, out = np.zeros(c.shape[1]), []
        for t in range(len(x)):
            forget = bound + (1 - bound) * sigmoid(f[t])
            h = forget * h + (1 - forget) * silu(c[t])
            out.append(rms_norm(h, w["norm.weight"], 1e-5) * silu(g[t]))
        return np.stack(out) @ w["out_proj.weight"].T

    return rows(row, x)
