"""Mamba, from arXiv:2312.00752, eq. 2 and algorithm 2: one channel and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, silu, softplus, weights

VARIANTS = {
    "plain": {},
    "odd sizes": {"expand": 3, "state_size": 5, "dt_rank": 3, "conv_width": 3},
    "biases, norms": {"bias": True, "conv_bias": False, "norm_eps": 1e-3},
    "norms with weights": {"norm_eps": 1e-3, "norm_weights": True},
    "negative": {"expand": 1, "state_size": 4, "negative_eigenvalues": True},
}


def forward(layer, x):
    w = weights(layer)
    N, R = layer.state_size, layer.dt_rank
    A = -np.exp(w["A_log"])

    def row(u):
        x, z = np.split(linear(w, "in_proj", u), 2, axis=1)
        x = silu(causal_conv(x, w["conv.weight"], w.get("conv.bias")))
        low, B, C = np.split(x @ w["x_proj.weight"].T, [R, R + N], axis=1)
        if layer.norm_eps is not None:
            low, B, C = (
                rms_norm(t, w.get(f"{name}_norm", 1), layer.norm_eps) for name, t in (("rank", low), ("B", B), ("C", C))
            )
        step = softplus(low @ w["dt_proj.weight"].T + w["dt_bias"])
        y = np.zeros_like(x)
        for d in range(x.shape[1]):
            h = np.zeros(N)
            for t in range(len(x)):
                decay = np.exp(step[t, d] * A[d])
                if layer.negative_eigenvalues:
                    decay = 2 * decay - 1
                h = decay * h + step[t, d] * B[t] * x[t, d]
                y[t, d] = C[t] @ h + w["D"][d] * x[t, d]
        return linear(w, "out_proj", y * silu(z))

    return rows(row, x)
