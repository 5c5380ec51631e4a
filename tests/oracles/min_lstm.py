"""minLSTM, from the paper's pseudo-code (sequential mode), arXiv:2410.01201, appendix B."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, sigmoid, weights

VARIANTS = {"plain": {}, "linear candidate": {"log_space": False}}


def forward(layer, x):
    candidate, forget, enter = np.split(weights(layer)["cell.proj.weight"], 3)

    def row(x):
        h, out = np.zeros(layer.width), []
        for now in x:
            f, i = sigmoid(forget @ now), sigmoid(enter @ now)
            tilde = candidate @ now
            if layer.cell.log_space:
                tilde = np.where(tilde >= 0, tilde + 0.5, sigmoid(tilde))
            h = f / (f + i) * h + i / (f + i) * tilde
            out.append(h)
        return np.stack(out)

    return rows(row, x)
