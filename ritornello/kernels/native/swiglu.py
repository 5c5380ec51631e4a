"""The gated linear unit with silu, in C: src/norm.c."""

from __future__ import annotations

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, grid, strides
from ritornello.kernels.native.rms_norm import BACKWARD, FIELDS

_forward = Entry("swiglu_forward", FIELDS, unused=BACKWARD)  # no weight, no eps
_backward = Entry("swiglu_backward", FIELDS + BACKWARD)


def forward(gate, up, save):
    out = blank(gate)
    gate, up = grid(gate), grid(up)
    _forward(
        out.dtype, up.data_ptr(), gate.data_ptr(), 0, out.data_ptr(),
        *up.shape, *strides(up), *strides(gate), 0.0,
    )  # fmt: skip
    return (out,), None


def backward(grads, trace, needs, gate, up):
    dgate, dup = (blank(t) if n else None for t, n in zip((gate, up), needs, strict=True))
    gate, up, grad = grid(gate), grid(up), grid(grads[0])
    _backward(
        up.dtype, up.data_ptr(), gate.data_ptr(), 0, 0,
        *up.shape, *strides(up), *strides(gate), 0.0,
        grad.data_ptr(), address(dup), address(dgate), 0, *strides(grad),
    )  # fmt: skip
    return dgate, dup
