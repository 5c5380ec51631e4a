"""A causal depthwise convolution by `numpy.convolve`, channel after channel; the last tap is on the present."""

from __future__ import annotations

import numpy as np


def oracle(x, weight, state, activation, bias=None):
    full = np.concatenate([state.swapaxes(1, 2), x], 1)
    y = np.zeros_like(x)
    for row in range(x.shape[0] if x.shape[1] else 0):
        for channel in range(x.shape[2]):
            y[row, :, channel] = np.convolve(full[row, :, channel], weight[channel, ::-1], mode="valid")
    y = y if bias is None else y + bias
    y = y / (1 + np.exp(-y)) if activation == "silu" else y
    return y, (full[:, full.shape[1] - weight.shape[1] + 1 :].swapaxes(1, 2),)
