"""h ← a ⊙ h + b, real and complex, in C: src/diagonal_scan.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, rows, starts, zero_tail

CHUNK = 64  # as in the C source: one checkpoint for so many steps

FIELDS = "3p 3p p 3q 4q 2p 3p 2q"
_forward = Entry("diagonal_scan_forward", FIELDS)
_backward = Entry("diagonal_scan_backward", FIELDS)
_complex_forward = Entry("diagonal_scan_complex_forward", FIELDS)
_complex_backward = Entry("diagonal_scan_complex_backward", FIELDS)


def trace_size(a, b, state, cu_seqlens):
    return checkpoint_slots(b, state, cu_seqlens) * state[0].numel() * state.element_size() if state.shape[0] else 0


def forward(a, b, state, cu_seqlens, save):
    out, last = blank(b), blank(state)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(a, b, state, cu_seqlens) if save else 0, dtype=torch.uint8)
    a3, b3, bounds = _flat(a), _flat(b), starts(cu_seqlens)
    state = state.resolve_conj().contiguous()
    kernel, dtype = (_complex_forward, a3.dtype) if b.is_complex() else (_forward, a3.dtype)
    kernel(
        dtype, a3.data_ptr(), b3.data_ptr(), state.data_ptr(), out.data_ptr(), last.data_ptr(),
        trace.data_ptr() if trace.numel() else 0, address(bounds), state.shape[0], b3.shape[1], b3.shape[2],
        a3.stride(0), a3.stride(1), b3.stride(0), b3.stride(1), 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return (out, last), trace


def backward(grads, trace, needs, a, b, state, cu_seqlens):
    grad, grad_last = grads
    a3, b3, bounds = _flat(a), _flat(b), starts(cu_seqlens)
    g3 = None if grad is None else _flat(grad)
    grad_last = None if grad_last is None else grad_last.resolve_conj().contiguous()
    da, db = (blank(b) if need else None for need in needs[:2])
    dstate = blank(state) if needs[2] else None
    zero_tail(cu_seqlens, da, db)
    kernel, dtype = (_complex_backward, a3.dtype) if b.is_complex() else (_backward, a3.dtype)
    kernel(
        dtype, a3.data_ptr(), b3.data_ptr(), 0, 0, 0, address(trace), address(bounds),
        state.shape[0], b3.shape[1], b3.shape[2], a3.stride(0), a3.stride(1), b3.stride(0), b3.stride(1),
        address(g3), address(grad_last), address(da), address(db), address(dstate),
        g3.stride(0) if g3 is not None else 0, g3.stride(1) if g3 is not None else 0,
    )  # fmt: skip
    return da, db, dstate, None


def checkpoint_slots(b, state, cu_seqlens):
    """How many checkpoints there are: each chunk's, at a place that its sequence alone decides."""
    length = b.shape[1]
    return state.shape[0] * -(-length // CHUNK) if cu_seqlens is None else length // CHUNK + state.shape[0] + 1


def _flat(x):
    """(B, T, \\*S) → (B, T, C); the parts of a complex number are two channels."""
    return rows(torch.view_as_real(x.resolve_conj()) if x.is_complex() else x)
