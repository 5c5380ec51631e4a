"""The short causal convolution with its activation, in C: src/causal_conv.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, contiguous, dense, starts, strides, zero_tail
from ritornello.typing import accumulation_dtype

TAPS = 32  # as in the C source

FIELDS, BACKWARD = "4p 2p p 5q 2q", "2p 2p 2p 2q"
_forward = Entry("causal_conv_forward", FIELDS, unused=BACKWARD)
_backward = Entry("causal_conv_backward", FIELDS + BACKWARD)


def limits(x, weight, bias, state, cu_seqlens, activation):
    return None if weight.shape[1] <= TAPS else f"its widest window is {TAPS}, `weight` has {weight.shape[1]} taps"


def forward(x, weight, bias, state, cu_seqlens, activation, save):
    out, last = blank(x), blank(state)
    zero_tail(cu_seqlens, out)
    x, weight, bias, state = dense(x), weight.contiguous(), contiguous(bias), state.contiguous()
    bounds = starts(cu_seqlens)
    _forward(
        x.dtype, x.data_ptr(), weight.data_ptr(), address(bias), state.data_ptr(), out.data_ptr(), last.data_ptr(),
        address(bounds), state.shape[0], x.shape[1], *weight.shape, activation == "silu", *strides(x),
    )  # fmt: skip
    return (out, last), None


def backward(grads, trace, needs, x, weight, bias, state, cu_seqlens, activation):
    grad, grad_last = dense(grads[0]), contiguous(grads[1])
    dx = blank(x) if needs[0] else None
    dstate = blank(state) if needs[3] else None
    wide = accumulation_dtype(x.dtype)
    dweight, dbias = torch.empty(weight.shape, dtype=wide), torch.empty(weight.shape[0], dtype=wide)
    zero_tail(cu_seqlens, dx)
    x, weight, bias, state = dense(x), weight.contiguous(), contiguous(bias), state.contiguous()
    bounds = starts(cu_seqlens)
    _backward(
        x.dtype, x.data_ptr(), weight.data_ptr(), address(bias), state.data_ptr(), 0, 0,
        address(bounds), state.shape[0], x.shape[1], *weight.shape, activation == "silu", *strides(x),
        address(grad), address(grad_last), address(dx), address(dstate), dweight.data_ptr(), dbias.data_ptr(),
        *strides(grad),
    )  # fmt: skip
    return dx, dweight, dbias, dstate, None
