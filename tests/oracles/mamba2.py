"""Mamba-2, from arXiv:2405.21060, eq. 1 with a scalar A and figure 6: one head and one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import causal_conv, rms_norm, rows, silu, softplus, weights

VARIANTS = {
    "plain": {"heads": 4, "state_size": 16},
    "groups": {"heads": 4, "groups": 2, "expand": 3, "state_size": 5, "conv_width": 3},
    "biases, gated last": {
        "channels": 48, "heads": 3, "bias": True, "out_bias": True, "conv_bias": False, "norm": "gate_last",
        "norm_eps": 1e-3, "groups": 3, "state_size": 8,
    },
    "no norm": {"heads": 2, "state_size": 8, "norm": "none"},
    "negative": {"heads": 2, "state_size": 8, "negative_eigenvalues": True},
}  # fmt: skip


def forward(layer, x):
    w = weights(layer)
    H, G, N, P = layer.heads, layer.groups, layer.state_size, layer.value_size
    inner = H * P

    def row(u):
        z, xBC, a = np.split(linear(w, "in_proj", u), [inner, 2 * inner + 2 * G * N], axis=1)
        xBC = silu(causal_conv(xBC, w["conv.weight"], w.get("conv.bias")))
        x, B, C = np.split(xBC, [inner, inner + G * N], axis=1)
        step = softplus(a + w["decay.dt_bias"])
        A = -np.exp(w["decay.A_log"])
        y = np.zeros((len(u), inner))
        for head in range(H):
            group = head // (H // G)
            shared, own = slice(group * N, (group + 1) * N), slice(head * P, (head + 1) * P)
            S = np.zeros((N, P))
            for t in range(len(u)):
                decay = np.exp(step[t, head] * A[head])
                if layer.negative_eigenvalues:
                    decay = 2 * decay - 1
                S = decay * S + step[t, head] * np.outer(B[t, shared], x[t, own])
                y[t, own] = C[t, shared] @ S + w["D"][head] * x[t, own]
        gate_last = layer.norm is not None and layer.norm.gate_last
        y = y if gate_last else y * silu(z)
        if layer.norm is not None:
            y = y.reshape(len(u), G, -1)
            y = rms_norm(y, w["norm.weight"].reshape(G, -1), layer.norm.eps).reshape(len(u), -1)
        return linear(w, "out_proj", y * silu(z) if gate_last else y)

    return rows(row, x)
