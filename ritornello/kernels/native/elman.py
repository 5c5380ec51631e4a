"""Elman's cell in C: src/cell_elman.c."""

from __future__ import annotations

from ritornello.kernels.native._cell import Cell

_cell = Cell("elman", slots=1)


def trace_size(u, weight, state, cu_seqlens, activation):
    return _cell.trace_size(u)


def forward(u, weight, state, cu_seqlens, activation, save):
    return _cell.forward(u, weight, (state,), cu_seqlens, save, option=activation == "relu")


def backward(grads, trace, needs, u, weight, state, cu_seqlens, activation):
    option = activation == "relu"
    du, dweight, (dstate,), _ = _cell.backward(grads, trace, u, weight, (state,), cu_seqlens, option=option)
    return du, dweight, dstate, None
