"""torch.nn.GRU, a third party's code: one layer with the identity for its input matrix, so that its input is u."""

from __future__ import annotations

import torch

from tests.oracles.lstm import dense


def gru(u, weight, bias, h):
    steps, gates, width = u.shape[1], u.shape[2], u.shape[3]
    layer = torch.nn.GRU(gates * width, width, batch_first=True).to(u.dtype)
    zero = torch.zeros(2 * width, dtype=u.dtype)
    parameters = {
        "weight_ih_l0": torch.eye(gates * width, dtype=u.dtype),
        "weight_hh_l0": dense(weight),
        "bias_ih_l0": torch.zeros(gates * width, dtype=u.dtype),
        "bias_hh_l0": torch.cat([zero, torch.zeros_like(h[0]) if bias is None else bias]),
    }
    y, h = torch.func.functional_call(layer, parameters, (u.reshape(-1, steps, gates * width), h[None]))
    return y, h[0]


VARIANTS = {"plain": {}, "heads": {"heads": 4}}


def forward(layer, x):
    """The layer's own weights in torch.nn.GRU."""
    cell, width = layer.cell, layer.width
    theirs = torch.nn.GRU(width, width, batch_first=True).to(x.dtype)
    matrices = {
        "weight_ih_l0": cell.weight_ih,
        "weight_hh_l0": dense(cell.weight_hh),
        "bias_ih_l0": cell.bias,
        "bias_hh_l0": torch.cat([torch.zeros_like(cell.bias[width:]), cell.bias_hn]),
    }
    return torch.func.functional_call(theirs, matrices, (x,))[0]
