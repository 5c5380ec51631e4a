"""h_i ← Σ_j a_ij ⊙ h_j + b_i for two, three or four states, in C: src/block_scan.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, starts, zero_tail

CHUNK = 64  # as in the C source: one checkpoint for so many steps
STATES = (2, 3, 4)

FIELDS = "3p 3p p 4q 4q 2p 3p 2q"
_forward = Entry("block_scan_forward", FIELDS)
_backward = Entry("block_scan_backward", FIELDS)


def limits(a, b, state, cu_seqlens):
    if b.shape[2] not in STATES:
        return f"it mixes two, three or four states, and was given {b.shape[2]}"
    return None


def trace_size(a, b, state, cu_seqlens):
    rows, length = state.shape[0], b.shape[1]
    slots = rows * -(-length // CHUNK) if cu_seqlens is None else length // CHUNK + rows + 1
    return slots * state[0].numel() * state.element_size() if rows else 0


def forward(a, b, state, cu_seqlens, save):
    out, last = blank(b), blank(state)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(a, b, state, cu_seqlens) if save else 0, dtype=torch.uint8)
    a, b, state, bounds = _dense(a), _dense(b), state.contiguous(), starts(cu_seqlens)
    _forward(
        b.dtype, a.data_ptr(), b.data_ptr(), state.data_ptr(), out.data_ptr(), last.data_ptr(),
        trace.data_ptr() if trace.numel() else 0, address(bounds), state.shape[0], *b.shape[1:],
        a.stride(0), a.stride(1), b.stride(0), b.stride(1), 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return (out, last), trace


def backward(grads, trace, needs, a, b, state, cu_seqlens):
    grad, grad_last = grads
    a, b, bounds = _dense(a), _dense(b), starts(cu_seqlens)
    grad = None if grad is None else _dense(grad)
    grad_last = None if grad_last is None else grad_last.contiguous()
    da, db, dstate = (blank(x) if need else None for x, need in zip((a, b, state), needs, strict=False))
    zero_tail(cu_seqlens, da, db)
    _backward(
        b.dtype, a.data_ptr(), b.data_ptr(), 0, 0, 0, address(trace), address(bounds), state.shape[0], *b.shape[1:],
        a.stride(0), a.stride(1), b.stride(0), b.stride(1), address(grad), address(grad_last), address(da),
        address(db), address(dstate), *(grad.stride()[:2] if grad is not None else (0, 0)),
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
