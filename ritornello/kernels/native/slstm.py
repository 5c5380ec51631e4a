"""The sLSTM in C: src/cell_slstm.c."""

from __future__ import annotations

from ritornello.kernels.native._cell import Cell

_cell = Cell("slstm", slots=7, states=3)


def trace_size(u, weight, h, c, n, m, cu_seqlens):
    return _cell.trace_size(u)


def forward(u, weight, h, c, n, m, cu_seqlens, save):
    return _cell.forward(u, weight, (h, c, n, m), cu_seqlens, save)


def backward(grads, trace, needs, u, weight, h, c, n, m, cu_seqlens):
    du, dweight, dstates, _ = _cell.backward(grads, trace, u, weight, (h, c, n, m), cu_seqlens)
    return du, dweight, *dstates, None, None
