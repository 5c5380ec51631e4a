"""The MGU in C: src/cell_mgu.c."""

from __future__ import annotations

from ritornello.kernels.native._cell import Cell

_cell = Cell("mgu", slots=3)


def trace_size(u, weight, state, cu_seqlens):
    return _cell.trace_size(u)


def forward(u, weight, state, cu_seqlens, save):
    return _cell.forward(u, weight, (state,), cu_seqlens, save)


def backward(grads, trace, needs, u, weight, state, cu_seqlens):
    du, dweight, (dstate,), _ = _cell.backward(grads, trace, u, weight, (state,), cu_seqlens, operand=True)
    return du, dweight, dstate, None
