"""torch.nn.LSTM, a third party's code: one layer with the identity for its input matrix, so that its input is u."""

from __future__ import annotations

import torch


def lstm(u, weight, h, c):
    steps, gates, width = u.shape[1], u.shape[2], u.shape[3]
    layer = torch.nn.LSTM(gates * width, width, batch_first=True, bias=False).to(u.dtype)
    matrices = (torch.eye(gates * width, dtype=u.dtype), dense(weight))
    y, (h, c) = torch.func.functional_call(
        layer,
        dict(zip(("weight_ih_l0", "weight_hh_l0"), matrices, strict=True)),
        (u.reshape(-1, steps, gates * width), (h[None], c[None])),
    )
    return y, (h[0], c[0])


def dense(weight):
    """(gates, heads, out, in) as one matrix over all gates, zero between the heads."""
    return torch.cat([torch.block_diag(*gate.unbind()) for gate in weight.unbind()])


VARIANTS = {"plain": {}, "heads": {"heads": 4}}


def forward(layer, x):
    """The layer's own weights in torch.nn.LSTM."""
    cell, width = layer.cell, layer.width
    theirs = torch.nn.LSTM(width, width, batch_first=True).to(x.dtype)
    matrices = {
        "weight_ih_l0": cell.weight_ih,
        "weight_hh_l0": dense(cell.weight_hh),
        "bias_ih_l0": cell.bias,
        "bias_hh_l0": torch.zeros_like(cell.bias),
    }
    return torch.func.functional_call(theirs, matrices, (x,))[0]
