"""h ← (1 − σ(gate)) ⊙ h + σ(gate) ⊙ g(value), in C: src/gated_scan.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, rows, starts, zero_tail
from ritornello.kernels.native.diagonal_scan import checkpoint_slots

ACTIVATIONS = (None, "positive", "tanh", "silu")  # as in the C source

FIELDS = "3p 3p p 4q 4q 2p 3p 2q"
_forward = Entry("gated_scan_forward", FIELDS)
_backward = Entry("gated_scan_backward", FIELDS)


def trace_size(gate, value, state, cu_seqlens, activation):
    return checkpoint_slots(value, state, cu_seqlens) * state[0].numel() * state.element_size() if len(state) else 0


def forward(gate, value, state, cu_seqlens, activation, save):
    out, last = blank(value), blank(state)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(gate, value, state, cu_seqlens, activation) if save else 0, dtype=torch.uint8)
    gate, value, state, bounds = rows(gate), rows(value), state.contiguous(), starts(cu_seqlens)
    _forward(
        value.dtype, gate.data_ptr(), value.data_ptr(), state.data_ptr(), out.data_ptr(), last.data_ptr(),
        trace.data_ptr() if trace.numel() else 0, address(bounds), state.shape[0], *value.shape[1:],
        ACTIVATIONS.index(activation), *gate.stride()[:2], *value.stride()[:2], 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return (out, last), trace


def backward(grads, trace, needs, gate, value, state, cu_seqlens, activation):
    grad, grad_last = grads
    dgate, dvalue, dstate = blank(gate), blank(value), blank(state)
    zero_tail(cu_seqlens, dgate, dvalue)
    gate, value, bounds = rows(gate), rows(value), starts(cu_seqlens)
    grad = None if grad is None else rows(grad)
    grad_last = None if grad_last is None else grad_last.contiguous()
    _backward(
        value.dtype, gate.data_ptr(), value.data_ptr(), 0, 0, 0, address(trace), address(bounds), state.shape[0],
        *value.shape[1:], ACTIVATIONS.index(activation), *gate.stride()[:2], *value.stride()[:2], address(grad),
        address(grad_last), dgate.data_ptr(), dvalue.data_ptr(), dstate.data_ptr(),
        *(grad.stride()[:2] if grad is not None else (0, 0)),
    )  # fmt: skip
    return dgate, dvalue, dstate, None
