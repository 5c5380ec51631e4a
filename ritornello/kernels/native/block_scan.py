"""h_i ← Σ_j a_ij ⊙ h_j + b_i for two, three or four states, in C: src/block_scan.c."""

from __future__ import annotations

import math

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, contiguous, slots, starts, strides, zero_tail

CHUNK = 64  # as in the C source: one checkpoint for so many steps
STATES = (2, 3, 4)

FIELDS, BACKWARD = "3p 3p p 4q 4q", "2p 3p 2q"
_forward = Entry("block_scan_forward", FIELDS, unused=BACKWARD)
_backward = Entry("block_scan_backward", FIELDS + BACKWARD)


def limits(a, b, state, cu_seqlens):
    if b.shape[2] not in STATES:
        return f"it mixes two, three or four states, and was given {b.shape[2]}"
    return None


def trace_size(a, b, state, cu_seqlens):
    return slots(state.shape[0], b.shape[1], CHUNK, cu_seqlens) * math.prod(state.shape[1:]) * state.element_size()


def forward(a, b, state, cu_seqlens, save):
    out, last = blank(b), blank(state)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(a, b, state, cu_seqlens), dtype=torch.uint8) if save else None
    a, b, state, bounds = _dense(a), _dense(b), state.contiguous(), starts(cu_seqlens)
    _forward(
        b.dtype, a.data_ptr(), b.data_ptr(), state.data_ptr(), out.data_ptr(), last.data_ptr(),
        address(trace), address(bounds), state.shape[0], *b.shape[1:], *strides(a), *strides(b),
    )  # fmt: skip
    return (out, last), trace


def backward(grads, trace, needs, a, b, state, cu_seqlens):
    grad, grad_last = grads
    a, b, bounds = _dense(a), _dense(b), starts(cu_seqlens)
    grad = None if grad is None else _dense(grad)
    grad_last = contiguous(grad_last)
    da, db, dstate = (blank(x) if need else None for x, need in zip((a, b, state), needs, strict=False))
    zero_tail(cu_seqlens, da, db)
    _backward(
        b.dtype, a.data_ptr(), b.data_ptr(), 0, 0, 0, address(trace), address(bounds), state.shape[0], *b.shape[1:],
        *strides(a), *strides(b), address(grad), address(grad_last), address(da), address(db), address(dstate),
        *strides(grad),
    )  # fmt: skip
    return da, db, dstate, None


def _dense(x):
    """One step's numbers without gaps; rows and steps at any stride."""
    size = 1
    for length, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if length > 1 and stride != size:
            return x.contiguous()
        size *= length
    return x
