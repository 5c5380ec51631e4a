"""The running softmax average in C: src/softmax_scan.c."""

from __future__ import annotations

import math

import torch

from ritornello.kernels.native._library import DTYPES, Entry
from ritornello.kernels.native._tensors import address, blank, contiguous, rows, slots, starts, strides, zero_tail

CHUNK = 32  # as in the C source: one checkpoint for so many steps

FIELDS, BACKWARD = "6p 2p 4p p 4q 6q", "3p 5p p 2q"
_forward = Entry("softmax_scan_forward", FIELDS, unused=BACKWARD)
_backward = Entry("softmax_scan_backward", FIELDS + BACKWARD)


def limits(logits, values, *others):
    wanted = torch.float64 if values.dtype == torch.float64 else torch.float32
    if values.dtype not in DTYPES or logits.dtype != wanted:
        return f"it does not take logits in {logits.dtype} with values in {values.dtype}"
    return None if values.shape[-1] else "it does not take vectors of 0 values"


def trace_size(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    numbers = math.prod(values.shape[2:]) + 2 * math.prod(logits.shape[2:])
    return slots(m.shape[0], logits.shape[1], CHUNK, cu_seqlens) * numbers * m.element_size()


def forward(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens, save):
    tensors = logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens
    out = blank(values)
    last = blank(m), blank(numerator), blank(denominator)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(*tensors), dtype=torch.uint8) if save else None
    kept, inputs, sizes = _prepare(*tensors)
    _forward(
        values.dtype, *inputs, out.data_ptr(), *(t.data_ptr() for t in last), address(trace), address(kept[-1]), *sizes,
    )  # fmt: skip
    return (out, *last), trace


def backward(grads, trace, needs, logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    grad, _, grad_u, grad_w = grads
    grad = None if grad is None else rows(grad.flatten(2))
    grad_u, grad_w = contiguous(grad_u), contiguous(grad_w)
    dlogits, dvalues = blank(logits), blank(values)
    ddecay = None if log_decay is None else blank(logits)
    dbonus = None if bonus is None else logits.new_empty(m.shape)
    du, dw = blank(numerator), blank(denominator)
    zero_tail(cu_seqlens, dlogits, dvalues, ddecay)
    kept, inputs, sizes = _prepare(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens)
    _backward(
        values.dtype, *inputs, 0, 0, 0, 0, trace.data_ptr(), address(kept[-1]), *sizes,
        address(grad), address(grad_u), address(grad_w), dlogits.data_ptr(), address(ddecay), address(dbonus),
        du.data_ptr(), dw.data_ptr(), dvalues.data_ptr(), *strides(grad),
    )  # fmt: skip
    return dlogits, dvalues, ddecay, None if dbonus is None else dbonus.sum(0), None, du, dw, None


def _prepare(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    """The tensors as C reads them (to be kept alive), their addresses, and the sizes and strides."""
    size = values.shape[-1] if values.dim() > logits.dim() else 0
    logits, values = rows(logits), rows(values.flatten(2) if values.dim() > 2 else values)
    log_decay = None if log_decay is None else rows(log_decay)
    others = [contiguous(t) for t in (bonus, m, numerator, denominator)]
    kept = [logits, log_decay, *others, values, starts(cu_seqlens)]
    sizes = m.shape[0], *logits.shape[1:], size, *strides(logits), *strides(log_decay), *strides(values)
    return kept, [address(t) for t in kept[:-1]], sizes
