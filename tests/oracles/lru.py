"""LRU, from arXiv:2303.06349, section 3 and appendix A: one step at a time, in complex128."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "ring": {"state_size": 11, "r_min": 0.8, "r_max": 0.95, "max_phase": 0.6}}


def forward(layer, x):
    w = {name.removeprefix("cell."): value for name, value in weights(layer).items()}
    a = np.exp(-np.exp(w["nu_log"]) + 1j * np.exp(w["theta_log"]))
    real, imaginary = np.split(w["B.weight"], 2)
    B = (real + 1j * imaginary) * np.exp(w["gamma_log"])[:, None]
    real, imaginary = np.split(w["C.weight"], 2, axis=1)
    C = real + 1j * imaginary

    def row(x):
        h, out = np.zeros(len(a), complex), []
        for now in x:
            h = a * h + B @ now
            out.append((C @ h).real + w["D"] * now)
        return np.stack(out)

    return rows(row, x)
