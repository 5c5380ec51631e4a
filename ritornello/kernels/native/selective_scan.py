"""Mamba's selective scan in C: src/selective_scan.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, contiguous, dense, slots, starts, strides, zero_tail

CHUNK, BLOCK = 32, 64  # as in the C source: one checkpoint for so many steps, for blocks of so many channels

FIELDS, BACKWARD = "4p 3p p 2p p 5q 8q", "2p 2p 5p 2q"
_forward = Entry("selective_scan_forward", FIELDS, unused=BACKWARD)
_backward = Entry("selective_scan_backward", FIELDS + BACKWARD)


def trace_size(x, delta, A, B, C, D, state, cu_seqlens, signed):
    numbers = -(-x.shape[2] // BLOCK) * BLOCK * A.shape[1]
    return slots(state.shape[0], x.shape[1], CHUNK, cu_seqlens) * numbers * state.element_size()


def forward(x, delta, A, B, C, D, state, cu_seqlens, signed, save):
    out, last = blank(x), blank(state)
    zero_tail(cu_seqlens, out)
    trace = None
    if save:
        trace = torch.empty(trace_size(x, delta, A, B, C, D, state, cu_seqlens, signed), dtype=torch.uint8)
    x, delta, B, C = dense(x), dense(delta), dense(B), dense(C)
    A, D, state, bounds = A.contiguous(), contiguous(D), state.contiguous(), starts(cu_seqlens)
    _forward(
        x.dtype, x.data_ptr(), delta.data_ptr(), B.data_ptr(), C.data_ptr(), A.data_ptr(), address(D), state.data_ptr(),
        out.data_ptr(), last.data_ptr(), address(trace), address(bounds),
        state.shape[0], *x.shape[1:], A.shape[1], signed, *strides(x), *strides(delta), *strides(B), *strides(C),
    )  # fmt: skip
    return (out, last), trace


def backward(grads, trace, needs, x, delta, A, B, C, D, state, cu_seqlens, signed):
    grad, grad_last = dense(grads[0]), contiguous(grads[1])
    dx, ddelta = blank(x), blank(x)
    dA, dstate = state.new_empty(A.shape), blank(state)
    dB, dC, dD = state.new_empty(B.shape), state.new_empty(B.shape), state.new_empty(A.shape[0])
    zero_tail(cu_seqlens, dx, ddelta)
    x, delta, B, C = dense(x), dense(delta), dense(B), dense(C)
    A, D, bounds = A.contiguous(), contiguous(D), starts(cu_seqlens)
    _backward(
        x.dtype, x.data_ptr(), delta.data_ptr(), B.data_ptr(), C.data_ptr(), A.data_ptr(), address(D), 0,
        0, 0, trace.data_ptr(), address(bounds),
        state.shape[0], *x.shape[1:], A.shape[1], signed, *strides(x), *strides(delta), *strides(B), *strides(C),
        address(grad), address(grad_last), dx.data_ptr(), ddelta.data_ptr(),
        dA.data_ptr(), dB.data_ptr(), dC.data_ptr(), dD.data_ptr(), dstate.data_ptr(), *strides(grad),
    )  # fmt: skip
    return dx, ddelta, dA, dB, dC, dD if D is not None else None, dstate, None
