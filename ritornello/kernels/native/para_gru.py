"""ParaGRU in C: src/cell_para_gru.c."""

from __future__ import annotations

from ritornello.kernels.native._diagonal_cell import DiagonalCell

_cell = DiagonalCell("para_gru", states=1)


def trace_size(u, weight, state, cu_seqlens):
    return _cell.trace_size(u)


def forward(u, weight, state, cu_seqlens, save):
    return _cell.forward(u, weight, (state,), cu_seqlens, save)


def backward(grads, trace, needs, u, weight, state, cu_seqlens):
    du, dweight, (dstate,) = _cell.backward(grads, trace, u, weight, (state,), cu_seqlens)
    return du, dweight, dstate, None
