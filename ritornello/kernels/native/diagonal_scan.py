"""h ← a ⊙ h + b, real and complex, in C: src/diagonal_scan.c."""

from __future__ import annotations

import math

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, rows, slots, starts, strides, zero_tail

CHUNK = 64  # as in the C source: one checkpoint for so many steps

FIELDS, BACKWARD = "3p 3p p 3q 4q", "2p 3p 2q"
_forward = Entry("diagonal_scan_forward", FIELDS, unused=BACKWARD)
_backward = Entry("diagonal_scan_backward", FIELDS + BACKWARD)
_complex_forward = Entry("diagonal_scan_complex_forward", FIELDS, unused=BACKWARD)
_complex_backward = Entry("diagonal_scan_complex_backward", FIELDS + BACKWARD)


def trace_size(a, b, state, cu_seqlens):
    return slots(state.shape[0], b.shape[1], CHUNK, cu_seqlens) * math.prod(state.shape[1:]) * state.element_size()


def forward(a, b, state, cu_seqlens, save):
    out, last = blank(b), blank(state)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(a, b, state, cu_seqlens), dtype=torch.uint8) if save else None
    a3, b3, bounds = _flat(a), _flat(b), starts(cu_seqlens)
    state = state.resolve_conj().contiguous()
    kernel = _complex_forward if b.is_complex() else _forward
    kernel(
        a3.dtype, a3.data_ptr(), b3.data_ptr(), state.data_ptr(), out.data_ptr(), last.data_ptr(), address(trace),
        address(bounds), state.shape[0], *b3.shape[1:], *strides(a3), *strides(b3),
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
    kernel = _complex_backward if b.is_complex() else _backward
    kernel(
        a3.dtype, a3.data_ptr(), b3.data_ptr(), 0, 0, 0, address(trace), address(bounds), state.shape[0], *b3.shape[1:],
        *strides(a3), *strides(b3), address(g3), address(grad_last), address(da), address(db), address(dstate),
        *strides(g3),
    )  # fmt: skip
    return da, db, dstate, None


def _flat(x):
    """(B, T, \\*S) → (B, T, C); the parts of a complex number are two channels."""
    return rows(torch.view_as_real(x.resolve_conj()) if x.is_complex() else x)
