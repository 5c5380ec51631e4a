"""M²RNN in C: src/cell_m2rnn.c."""

from __future__ import annotations

import math

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, dense, slots, starts, zero_tail

SEGMENT = 16  # as in the C source: one checkpoint for so many steps

_FIELDS = "6q p 3p 9q 2p p p 2p p p 3p 3p"
_forward, _backward = Entry("m2rnn", _FIELDS), Entry("m2rnn_backward", _FIELDS)


def trace_size(q, k, v, f, weight, state, cu_seqlens):
    return slots(state.shape[0], v.shape[1], SEGMENT, cu_seqlens) * math.prod(state.shape[1:]) * state.element_size()


def forward(q, k, v, f, weight, state, cu_seqlens, save):
    o, last = blank(v), blank(state)
    trace = torch.empty(trace_size(q, k, v, f, weight, state, cu_seqlens), dtype=torch.uint8) if save else None
    zero_tail(cu_seqlens, o)
    _call(_forward, q, k, v, f, weight, state, cu_seqlens, (o, last, trace))
    return (o, last), trace


def backward(grads, trace, needs, q, k, v, f, weight, state, cu_seqlens):
    grad, dlast = (None if g is None else g.contiguous() for g in grads)
    rows, heads, key, value = state.shape
    dq, dk = (q.new_empty(*v.shape[:3], key) for _ in range(2))
    dv, df, dstate = (blank(x) for x in (v, f, state))
    dweight = state.new_empty(rows, heads, value, value)
    zero_tail(cu_seqlens, dq, dk, dv, df)
    found = (dq, dk, dv, df, dweight, dstate)
    _call(_backward, q, k, v, f, weight, state, cu_seqlens, (None, None, trace), (grad, dlast), found)
    # A head of q and k is read by a group of value heads.
    dq, dk = (d.unflatten(2, (q.shape[2], -1)).sum(3) for d in (dq, dk))
    return dq, dk, dv, df, dweight.sum(0), dstate, None


def _call(entry, q, k, v, f, weight, state, cu_seqlens, results, grads=(None,) * 2, found=(None,) * 6):
    q, k, v, bounds = dense(q), dense(k), dense(v), starts(cu_seqlens)
    f, weight, state = f.contiguous(), weight.contiguous(), state.contiguous()
    rows, heads, key, value = state.shape
    entry(
        v.dtype, rows, v.shape[1], heads, heads // q.shape[2], key, value, address(bounds),
        q.data_ptr(), k.data_ptr(), v.data_ptr(), *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        f.data_ptr(), weight.data_ptr(), state.data_ptr(), *map(address, results), *map(address, grads),
        *map(address, found),
    )  # fmt: skip
