"""Pieces that the layers' oracles share, in NumPy float64, straight from their definitions."""

from __future__ import annotations

import numpy as np


def weights(layer):
    """The layer's parameters and buffers by name, as float64 arrays."""
    return {name: p.detach().double().numpy() for name, p in layer.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def rms_norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def unit(x, eps=1e-6):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + eps)


def causal_conv(x, weight, bias=None):
    """x (T, D), weight (D, W): the last tap on the present."""
    width = weight.shape[1]
    padded = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    y = np.stack([(padded[t : t + width] * weight.T).sum(0) for t in range(len(x))])
    return y if bias is None else y + bias


def shift(x):
    """x_{t−1} of x (T, D); zero before the first."""
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def blocks(matrices):
    """(H, o, i) as one matrix, zero outside its blocks."""
    heads, out, wide = matrices.shape
    dense = np.zeros((heads * out, heads * wide))
    for head, matrix in enumerate(matrices):
        dense[head * out : (head + 1) * out, head * wide : (head + 1) * wide] = matrix
    return dense


def rows(function, x):
    """`function` of each row (T, D) of a torch tensor (B, T, D), as a torch tensor."""
    import torch

    return torch.from_numpy(np.stack([function(row) for row in x.detach().double().numpy()]))
