"""Griffin's recurrent block, from arXiv:2402.19427, eq. 1 to 6: one step at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import causal_conv, rows, sigmoid, weights

VARIANTS = {
    "plain": {},
    "heads": {"heads": 4},
    "odd sizes": {"state_size": 21, "heads": 3, "conv_width": 3},
}


def forward(layer, x):
    w = weights(layer)

    def gate(index, x):
        blocks = w["cell.weight"][index]
        parts = np.split(x, len(blocks))
        return sigmoid(np.concatenate([m @ p for m, p in zip(blocks, parts, strict=True)]) + w["cell.bias"][index])

    def row(u):
        x, z = np.split(u @ w["in_proj.weight"].T + w["in_proj.bias"], 2, axis=1)
        x = causal_conv(x, w["conv.weight"], w["conv.bias"])
        h, out = np.zeros(x.shape[1]), []
        for t, now in enumerate(x):
            a = (1 / (1 + np.exp(w["cell.Lambda"]))) ** (8 * gate(0, now))  # σ(−Λ) = e^{−softplus(Λ)}
            gated = gate(1, now) * now
            h = gated if t == 0 else a * h + np.sqrt(1 - a**2) * gated
            out.append(h)
        gelu = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        return (np.stack(out) * gelu) @ w["out_proj.weight"].T + w["out_proj.bias"]

    return rows(row, x)
