"""S5, from arXiv:2208.04933, section 3: one step at a time, in complex128."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {"plain": {}, "blocks": {"state_size": 24, "blocks": 3, "step_min": 0.1, "step_max": 0.5}}


def forward(layer, x):
    w = {name.removeprefix("cell."): value for name, value in weights(layer).items()}
    P = len(w["log_step"])
    poles = np.minimum(w["Lambda_real"], -1e-4) + 1j * w["Lambda_imag"]
    decay = np.exp(poles * np.exp(w["log_step"]))
    B = ((decay - 1) / poles)[:, None] * (w["B"][:P] + 1j * w["B"][P:])
    C = w["C"][:, :P] + 1j * w["C"][:, P:]

    def row(x):
        h, out = np.zeros(P, complex), []
        for now in x:
            h = decay * h + B @ now
            y = 2 * (C @ h).real + w["D"] * now
            g = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
            out.append(g * sigmoid(w["gate_proj.weight"] @ g + w["gate_proj.bias"]))
        return np.stack(out)

    return rows(row, x)
