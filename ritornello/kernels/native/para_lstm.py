"""ParaLSTM in C: src/cell_para_lstm.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._diagonal_cell import DiagonalCell

_cell = DiagonalCell("para_lstm", states=2)


def trace_size(u, weight, peephole, h, c, cu_seqlens):
    return _cell.trace_size(u)


def forward(u, weight, peephole, h, c, cu_seqlens, save):
    return _cell.forward(u, torch.cat([weight, peephole]), (h, c), cu_seqlens, save)


def backward(grads, trace, needs, u, weight, peephole, h, c, cu_seqlens):
    du, found, (dh, dc) = _cell.backward(grads, trace, u, torch.cat([weight, peephole]), (h, c), cu_seqlens)
    return du, found[:3], found[3:], dh, dc, None
