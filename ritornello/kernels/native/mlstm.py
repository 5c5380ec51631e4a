"""xLSTM's matrix memory: linear attention with a scalar decay, its gates and normaliser computed on the way."""

from __future__ import annotations

import torch

from ritornello.kernels.native import _matrix
from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address

__all__ = ["backward", "forward", "trace_size"]

_forward = Entry("mlstm_forward", _matrix.FORWARD + " d 16q")

GATES = 4
"""What the forward pass keeps of every head and step: log of the decay, gain of k, 1 / normaliser and its slope."""


def _sizes(q, v, C, cu_seqlens):
    """Bytes of the matrix kernels' trace, and of one of the gates after it."""
    matrix = _matrix.trace_size(v, C, cu_seqlens, keeps=True, ones=True)
    return matrix, q.shape[0] * q.shape[1] * q.shape[2] * C.element_size()


def trace_size(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps):
    matrix, gate = _sizes(q, v, C, cu_seqlens)
    return matrix + GATES * gate


def forward(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps, save):
    trace, kept = None, (0,) * GATES
    if save:
        matrix, gate = _sizes(q, v, C, cu_seqlens)
        trace = torch.empty(matrix + GATES * gate, dtype=torch.uint8)
        kept = (trace.data_ptr() + matrix + row * gate for row in range(GATES))
    n, m = n.contiguous(), m.contiguous()
    last_n, last_m = torch.empty_like(n), torch.empty_like(m)
    x = _matrix.Arguments(_matrix.LINEAR, q, k, v, C, cu_seqlens, scale, ones=True)
    more = (eps, *_matrix.view(i), *_matrix.view(f), *(address(t) for t in (n, m, last_n, last_m)), *kept)
    o, last, _ = _matrix.forward(x, save, trace, _forward, more)
    return (o, last, last_n, last_m), trace


def backward(grads, trace, needs, q, k, v, i, f, C, n, m, cu_seqlens, scale, eps):
    batch, steps, heads, _ = q.shape
    gates = trace[_sizes(q, v, C, cu_seqlens)[0] :].view(C.dtype).view(GATES, batch, heads, steps)
    decay, gain, norm, slope = gates.transpose(2, 3)
    x = _matrix.Arguments(
        _matrix.LINEAR, q, k, v, C, cu_seqlens, scale, decay=decay, logged=True, gain=gain, norm=norm, ones=True
    )
    names = ("q", "k", "v", "gain", "decay", "state", "n", "m", "cu_seqlens")
    dq, dk, dv, di, dlog_f, *others = _matrix.backward(x, grads, trace, needs, names, slope)
    return dq, dk, dv, di, None if dlog_f is None else dlog_f.mul_(torch.sigmoid(-f)), *others
