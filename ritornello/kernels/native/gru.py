"""The GRU in C: src/cell_gru.c."""

from __future__ import annotations

from ritornello.kernels.native._cell import Cell
from ritornello.typing import accumulation_dtype

_cell = Cell("gru", slots=5)


def trace_size(u, weight, bias, state, cu_seqlens):
    return _cell.trace_size(u)


def forward(u, weight, bias, state, cu_seqlens, save):
    bias = None if bias is None else bias.contiguous()
    return _cell.forward(u, weight, (state,), cu_seqlens, save, bias=bias)


def backward(grads, trace, needs, u, weight, bias, state, cu_seqlens):
    du, dweight, (dstate,), dproduct = _cell.backward(grads, trace, u, weight, (state,), cu_seqlens, product=True)
    dbias = None
    if needs[2] and dproduct is not None:
        dbias = dproduct.sum((0, 1), dtype=accumulation_dtype(u.dtype))
    return du, dweight, dbias, dstate, None
