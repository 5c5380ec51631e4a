"""The travelling-wave RNN, eq. 4 of arXiv:2309.08045 with the convolution of the authors' code: a float64 loop over
times, channels, places and taps."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rows, weights

VARIANTS = {"plain": {}, "one ring, tanh": {"channels": 1, "conv_width": 5, "activation": "tanh"}}


def forward(layer, x):
    w = weights(layer)
    kernel = w["cell.weight_hh"]
    channels, _, taps = kernel.shape
    places = layer.width // channels

    def row(x):
        h, out = np.zeros((channels, places)), []
        for now in x:
            total = (w["cell.weight_ih"] @ now).reshape(channels, places) + w["cell.bias"][:, None]
            for to, place, tap in np.ndindex(channels, places, taps):
                total[to, place] += kernel[to, :, tap] @ h[:, (place + tap - taps // 2) % places]
            h = np.maximum(total, 0) if layer.cell.activation == "relu" else np.tanh(total)
            out.append(h.reshape(-1))
        return np.stack(out)

    return rows(row, x)
