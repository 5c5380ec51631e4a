"""The running softmax average in C: src/softmax_scan.c."""

from __future__ import annotations

import torch

from ritornello.kernels.native._library import DTYPES, Entry
from ritornello.kernels.native._tensors import address, blank, rows, starts, zero_tail

CHUNK = 32  # as in the C source: one checkpoint for so many steps

FIELDS = "6p 2p 4p p 4q 6q 3p 5p p 2q"
_forward = Entry("softmax_scan_forward", FIELDS)
_backward = Entry("softmax_scan_backward", FIELDS)


def limits(logits, values, *others):
    wanted = torch.float64 if values.dtype == torch.float64 else torch.float32
    if values.dtype not in DTYPES or logits.dtype != wanted:
        return f"it does not take logits in {logits.dtype} with values in {values.dtype}"
    return None


def trace_size(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    steps, sequences = logits.shape[1], m.shape[0]
    slots = sequences * -(-steps // CHUNK) if cu_seqlens is None else steps // CHUNK + sequences + 1
    width = 1
    for size in values.shape[2:]:
        width *= size
    channels = 1
    for size in logits.shape[2:]:
        channels *= size
    return slots * (width + 2 * channels) * m.element_size()


def forward(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens, save):
    tensors = logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens
    out = blank(values)
    last = blank(m), blank(numerator), blank(denominator)
    zero_tail(cu_seqlens, out)
    trace = torch.empty(trace_size(*tensors) if save else 0, dtype=torch.uint8)
    kept, inputs, sizes = _prepare(*tensors)
    _forward(
        values.dtype, *inputs, out.data_ptr(), *(t.data_ptr() for t in last), trace.data_ptr() if save else 0,
        address(kept[-1]), *sizes, *(0,) * 11,
    )  # fmt: skip
    return (out, *last), trace


def backward(grads, trace, needs, logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    grad, _, grad_u, grad_w = grads
    grad = None if grad is None else rows(grad.flatten(2))
    grad_u, grad_w = (None if g is None else g.contiguous() for g in (grad_u, grad_w))
    dlogits, dvalues = blank(logits), blank(values)
    ddecay = None if log_decay is None else blank(logits)
    dbonus = None if bonus is None else logits.new_empty(m.shape)
    du, dw = blank(numerator), blank(denominator)
    zero_tail(cu_seqlens, dlogits, dvalues, ddecay)
    kept, inputs, sizes = _prepare(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens)
    _backward(
        values.dtype, *inputs, 0, 0, 0, 0, trace.data_ptr(), address(kept[-1]), *sizes,
        address(grad), address(grad_u), address(grad_w), dlogits.data_ptr(), address(ddecay), address(dbonus),
        du.data_ptr(), dw.data_ptr(), dvalues.data_ptr(), *_strides(grad),
    )  # fmt: skip
    return dlogits, dvalues, ddecay, None if dbonus is None else dbonus.sum(0), None, du, dw, None


def _prepare(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    """The tensors as C reads them (to be kept alive), their addresses, and the sizes and strides."""
    size = values.shape[-1] if values.dim() > logits.dim() else 0
    logits, values = rows(logits), rows(values.flatten(2) if values.dim() > 2 else values)
    log_decay = None if log_decay is None else rows(log_decay)
    others = [None if t is None else t.contiguous() for t in (bonus, m, numerator, denominator)]
    kept = [logits, log_decay, *others, values, starts(cu_seqlens)]
    sizes = m.shape[0], *logits.shape[1:], size, *_strides(logits), *_strides(log_decay), *_strides(values)
    return kept, [address(t) for t in kept[:-1]], sizes


def _strides(tensor):
    return (0, 0) if tensor is None else (tensor.stride(0), tensor.stride(1))
