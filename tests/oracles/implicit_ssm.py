"""The implicit state-space model, eq. 6 to 9 of arXiv:2502.07827 with f as in the authors' code: at each time z is
iterated until it does not change any more, then the state is kept; one head at a time, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import rms_norm, rows, silu, softplus, weights

VARIANTS = {
    "plain": {"state_size": 8},
    "heads": {"heads": 4, "state_size": 5, "expand": 1, "conv_width": 3},
    "residual": {"state_size": 8, "residual": True, "gain": 0.1},
}


def forward(layer, x):
    w = {name.removeprefix("cell."): p for name, p in weights(layer).items()}
    H, P, N = (layer.spec[name] for name in ("heads", "value_size", "state_size"))
    inner, taps = H * P, w["conv_weight"].shape[1]
    rates = -np.exp(w["decay.A_log"])

    def mamba(projected, window, S):
        """One step of the map f: its output, and the window and the state after it."""
        g, xBC, a = np.split(projected, [inner, 2 * inner + 2 * N])
        window = np.concatenate([window, xBC[None]])
        xBC = silu(sum(w["conv_weight"][:, tap] * window[tap] for tap in range(taps)) + w["conv_bias"])
        v, B, C = np.split(xBC, [inner, inner + N])
        step = softplus(a + w["decay.dt_bias"])
        new, y = np.zeros_like(S), np.zeros(inner)
        for head in range(H):
            own = slice(head * P, (head + 1) * P)
            new[head] = np.exp(step[head] * rates[head]) * S[head] + step[head] * np.outer(B, v[own])
            y[own] = C @ new[head] + w["D"][head] * v[own]
        return w["out_proj.weight"] @ rms_norm(y * silu(g), w["norm_gated"], 1e-5), window[1:], new

    w["norm_gated"] = dict(layer.cell.named_parameters())["norm"].detach().double().numpy()
    outer = layer.norm.weight.detach().double().numpy()

    def row(x):
        u = linear(w, "injection", rms_norm(x, outer, 1e-5))
        S, window, out = np.zeros((H, N, P)), np.zeros((taps - 1, inner + 2 * N)), np.zeros_like(x)
        for t in range(len(x)):
            z = np.zeros(x.shape[1])
            for _ in range(3000):
                seen = rms_norm(z, w["before"], 1e-5) if "before" in w else z
                new = mamba(u[t] + w["in_proj.weight"] @ seen, window, S)
                made = rms_norm(z + new[0], w["after"], 1e-5) if "after" in w else new[0]
                change, z = np.abs(made - z).max(), made
                if change < 1e-15:
                    break
            out[t], window, S = z, new[1], new[2]
        return out

    return rows(row, x)
