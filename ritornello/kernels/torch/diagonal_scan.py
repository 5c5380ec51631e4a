"""h ← a ⊙ h + b, by a blocked scan. Packed sequences are one scan, in which a is zero at each start."""

from __future__ import annotations

import torch

from ritornello.kernels.torch._scan import blocked_scan, scan_gradients
from ritornello.typing import Tensor, accumulated, accumulation_dtype


def forward(a, b, state, cu_seqlens, save):
    dtype, shape, rows = b.dtype, b.shape, state.shape
    if not shape[2:]:  # one number a step
        a, b, state = a.unsqueeze(-1), b.unsqueeze(-1), state.unsqueeze(-1)
    a, b, state = accumulated(a).flatten(2), accumulated(b).flatten(2), state.flatten(1)
    if cu_seqlens is None:
        h = blocked_scan(a, b, state)
        last = h[:, -1].clone()
    else:
        starts, ends, some = _bounds(cu_seqlens)
        a, b = _separated(a, b, state, starts, some)
        h = blocked_scan(a, b, state.new_zeros(1, state.shape[1]))
        h[:, int(cu_seqlens[-1]) :] = 0
        last = state.index_copy(0, some, h[0, ends])
    trace = torch.view_as_real(h) if h.is_complex() else h
    trace = trace.reshape(-1).view(torch.uint8).clone() if save else None
    return (h.reshape(shape).to(dtype), last.reshape(rows)), trace


def trace_size(a, b, state, cu_seqlens):
    return b.numel() * accumulation_dtype(b.dtype).itemsize


def backward(grads, trace, needs, a, b, state, cu_seqlens):
    shape, rows, dtype = b.shape, state.shape, state.dtype
    a, state = accumulated(a).reshape(*shape[:2], -1), state.reshape(rows[0], -1)
    grad, grad_last = grads
    grad = None if grad is None else grad.to(dtype).reshape(a.shape)
    grad_last = None if grad_last is None else grad_last.reshape(state.shape)
    h = trace.view(torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32)
    h = torch.view_as_complex(h.reshape(*a.shape, 2)) if dtype.is_complex else h.reshape(a.shape)
    if cu_seqlens is None:
        found = scan_gradients(a, h, state, grad, grad_last)
    else:
        found = _packed_gradients(a, h, state, grad, grad_last, cu_seqlens)
    return *(g.reshape(s) for g, s in zip(found, (shape, shape, rows), strict=True)), None


def _bounds(cu_seqlens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the last step of each sequence that is not empty, and which ones those are."""
    some = cu_seqlens.diff().nonzero().squeeze(1)
    return cu_seqlens[some].long(), cu_seqlens[some + 1].long() - 1, some


def _separated(a, b, state, starts, some) -> tuple[Tensor, Tensor]:
    """a and b of one scan over all sequences: a is zero at each start, and the state comes in by b."""
    first = a[0, starts]
    return a.index_fill(1, starts, 0), b.index_add(1, starts, (first * state[some]).unsqueeze(0))


def _packed_gradients(a, h, state, grad, grad_last, cu_seqlens):
    starts, ends, some = _bounds(cu_seqlens)
    grad = torch.zeros_like(h) if grad is None else grad.clone()
    grad[:, int(cu_seqlens[-1]) :] = 0
    grad_state = torch.zeros_like(state)
    if grad_last is not None:
        grad[0].index_add_(0, ends, grad_last[some])
        grad_state = grad_last.clone()  # of empty sequences; the others follow
    cut = a.index_fill(1, starts, 0)
    grad_a, grad_b, _ = scan_gradients(cut, h, state.new_zeros(1, state.shape[1]), grad, None)
    at_start = grad_b[0, starts]
    grad_a[0, starts] = at_start * state[some].conj()
    grad_state[some] = at_start * a[0, starts].conj()
    return grad_a, grad_b, grad_state
