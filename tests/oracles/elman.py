"""torch.nn.RNN, a third party's code: one layer with the identity for its input matrix, so that its input is u."""

from __future__ import annotations

import torch


def elman(u, weight, h, activation="tanh"):
    width = u.shape[-1]
    layer = torch.nn.RNN(width, width, batch_first=True, bias=False, nonlinearity=activation).to(u.dtype)
    parameters = {
        "weight_ih_l0": torch.eye(width, dtype=u.dtype),
        "weight_hh_l0": torch.block_diag(*weight.unbind()),
    }
    y, h = torch.func.functional_call(layer, parameters, (u, h[None]))
    return y, h[0]


VARIANTS = {"plain": {}, "relu in heads": {"activation": "relu", "heads": 4}}


def forward(layer, x):
    """The layer's own weights in torch.nn.RNN."""
    cell, width = layer.cell, layer.width
    theirs = torch.nn.RNN(width, width, batch_first=True, nonlinearity=cell.activation).to(x.dtype)
    matrices = {
        "weight_ih_l0": cell.weight_ih,
        "weight_hh_l0": torch.block_diag(*cell.weight_hh[0].unbind()),
        "bias_ih_l0": cell.bias,
        "bias_hh_l0": torch.zeros_like(cell.bias),
    }
    return torch.func.functional_call(theirs, matrices, (x,))[0]
