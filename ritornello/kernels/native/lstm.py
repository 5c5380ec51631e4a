"""The LSTM in C: src/cell_lstm.c."""

from __future__ import annotations

from ritornello.kernels.native._cell import Cell

_cell = Cell("lstm", slots=5, states=2)


def trace_size(u, weight, h, c, cu_seqlens):
    return _cell.trace_size(u)


def forward(u, weight, h, c, cu_seqlens, save):
    return _cell.forward(u, weight, (h, c), cu_seqlens, save)


def backward(grads, trace, needs, u, weight, h, c, cu_seqlens):
    du, dweight, (dh, dc), _ = _cell.backward(grads, trace, u, weight, (h, c), cu_seqlens)
    return du, dweight, dh, dc, None
