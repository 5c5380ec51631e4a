"""xLSTM's matrix memory: linear attention with a scalar decay, its gates and normaliser computed on the way."""

from __future__ import annotations

import torch

from ritornello.kernels.native import _matrix
from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["backward", "forward", "trace_size"]

_forward = Entry("mlstm_forward", _matrix.FORWARD + " d 16q")

GATES = 4
"""What the forward pass keeps of every head and step: log of the decay, gain of k, 1 / normaliser and its slope."""


def _sizes(q, v, C, cu_seqlens):
    """Bytes of the matrix kernels' trace, and of the gates after it."""
    size = accumulation_dtype(q.dtype).itemsize
    matrix = _matrix.trace_size(v, C, cu_seqlens, keeps=True, ones=True)
    return matrix, GATES * q.shape[0] * q.shape[1] * q.shape[2] * size


def trace_size(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps):
    return sum(_sizes(q, v, C, cu_seqlens))


def _split(trace: Tensor, q, v, C, cu_seqlens) -> tuple[Tensor, Tensor]:
    matrix, gates = _sizes(q, v, C, cu_seqlens)
    batch, steps, heads, _ = q.shape
    views = trace[matrix : matrix + gates].view(accumulation_dtype(q.dtype)).view(GATES, batch, heads, steps)
    return trace[:matrix], views.transpose(2, 3)


def forward(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps, save):
    trace, rows, kept = None, None, (0,) * GATES
    if save:
        trace = torch.empty(trace_size(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps), dtype=torch.uint8)
        rows, gates = _split(trace, q, v, C, cu_seqlens)
        kept = tuple(map(address, gates))
    n, m = n.contiguous(), m.contiguous()
    last_n, last_m = torch.empty_like(n), torch.empty_like(m)
    x = _matrix.Arguments(_matrix.LINEAR, q, k, v, C, cu_seqlens, scale, ones=True)
    more = (eps, *_matrix.view(i), *_matrix.view(f), *(address(t) for t in (n, m, last_n, last_m)), *kept)
    o, last, _ = _matrix.forward(x, save, rows, _forward, more)
    return (o, last, last_n, last_m), trace


def backward(grads, trace, needs, q, k, v, i, f, C, n, m, cu_seqlens, scale, eps):
    rows, (decay, gain, norm, slope) = _split(trace, q, v, C, cu_seqlens)
    x = _matrix.Arguments(
        _matrix.LINEAR, q, k, v, C, cu_seqlens, scale, decay=decay, logged=True, gain=gain, norm=norm, ones=True
    )
    names = ("q", "k", "v", "gain", "decay", "state", "n", "m", "cu_seqlens")
    dq, dk, dv, di, dlog_f, *others = _matrix.backward(x, grads, rows, needs, names, slope)
    return dq, dk, dv, di, None if dlog_f is None else dlog_f.mul_(torch.sigmoid(-f)), *others
