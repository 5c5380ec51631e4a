"""h ← (1 − σ(gate)) ⊙ h + σ(gate) ⊙ g(value), in C: src/gated_scan.c."""

from __future__ import annotations

import math

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, contiguous, rows, slots, starts, strides, zero_tail

CHUNK = 64  # as in the C source: one checkpoint for so many steps
ACTIVATIONS = (None, "positive", "tanh", "silu")  # as in the C source

FIELDS, BACKWARD = "3p 3p p 4q 4q", "2p 3p 2q"
_forward = Entry("gated_scan_forward", FIELDS, unused=BACKWARD)
_backward = Entry("gated_scan_backward", FIELDS + BACKWARD)


def trace_size(gate, value, state, cu_seqlens, activation):
    return slots(state.shape[0], value.shape[1], CHUNK, cu_seqlens) * math.prod(state.shape[1:]) * state.element_size()


def forward(gate, value, state, cu_seqlens, activation, save):
    out, last = blank(value), blank(state)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(gate, value, state, cu_seqlens, activation), dtype=torch.uint8) if save else None
    gate, value, state, bounds = rows(gate), rows(value), state.contiguous(), starts(cu_seqlens)
    _forward(
        value.dtype, gate.data_ptr(), value.data_ptr(), state.data_ptr(), out.data_ptr(), last.data_ptr(),
        address(trace), address(bounds), state.shape[0], *value.shape[1:], ACTIVATIONS.index(activation),
        *strides(gate), *strides(value),
    )  # fmt: skip
    return (out, last), trace


def backward(grads, trace, needs, gate, value, state, cu_seqlens, activation):
    grad, grad_last = grads
    dgate, dvalue, dstate = blank(gate), blank(value), blank(state)
    zero_tail(cu_seqlens, dgate, dvalue)
    gate, value, bounds = rows(gate), rows(value), starts(cu_seqlens)
    grad = None if grad is None else rows(grad)
    grad_last = contiguous(grad_last)
    _backward(
        value.dtype, gate.data_ptr(), value.data_ptr(), 0, 0, 0, address(trace), address(bounds), state.shape[0],
        *value.shape[1:], ACTIVATIONS.index(activation), *strides(gate), *strides(value), address(grad),
        address(grad_last), dgate.data_ptr(), dvalue.data_ptr(), dstate.data_ptr(), *strides(grad),
    )  # fmt: skip
    return dgate, dvalue, dstate, None
