"""The root-mean-square norm with its gate, in C: src/norm.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, grid, strides
from ritornello.typing import accumulation_dtype

FIELDS, BACKWARD = "2p p p 3q 2q 2q d", "p 2p p 2q"
_forward = Entry("rms_norm_forward", FIELDS, unused=BACKWARD)
_backward = Entry("rms_norm_backward", FIELDS + BACKWARD)


def forward(x, weight, gate, eps, save):
    out = blank(x)
    x, gate, weight = grid(x), grid(gate), _wide(weight, x)
    _forward(
        out.dtype, x.data_ptr(), address(gate), address(weight), out.data_ptr(),
        *x.shape, *strides(x), *strides(gate), eps,
    )  # fmt: skip
    return (out,), None


def backward(grads, trace, needs, x, weight, gate, eps):
    dx = blank(x) if needs[0] else None
    dweight = torch.empty(weight.shape, dtype=accumulation_dtype(x.dtype)) if needs[1] else None
    dgate = blank(gate) if needs[2] else None
    x, gate, grad, weight = grid(x), grid(gate), grid(grads[0]), _wide(weight, x)
    _backward(
        x.dtype, x.data_ptr(), address(gate), address(weight), 0,
        *x.shape, *strides(x), *strides(gate), eps,
        grad.data_ptr(), address(dx), address(dgate), address(dweight), *strides(grad),
    )  # fmt: skip
    return dx, dweight, dgate


def _wide(weight, x):
    return None if weight is None else weight.to(accumulation_dtype(x.dtype)).contiguous()
