"""The delta rule, with or without decay: one case of the matrix-state kernels."""

from __future__ import annotations

from ritornello.kernels.native import _matrix

__all__ = ["backward", "forward", "trace_size"]


def _arguments(q, k, v, beta, log_decay, decay, state, cu_seqlens, scale):
    logged = log_decay is not None
    return _matrix.Arguments(
        _matrix.DELTA, q, k, v, state, cu_seqlens, scale, beta=beta, decay=log_decay if logged else decay, logged=logged
    )


def trace_size(q, k, v, beta, log_decay, decay, state, cu_seqlens, scale):
    return _matrix.trace_size(q, v, state, cu_seqlens, keeps=True)


def forward(*arguments):
    *arguments, save = arguments
    o, last, trace = _matrix.forward(_arguments(*arguments), save)
    return (o, last), trace


def backward(grads, trace, needs, *arguments):
    log_decay = arguments[4]
    dq, dk, dv, dbeta, ddecay, dstate = _matrix.backward(
        _arguments(*arguments), grads[0], grads[1:], trace, ["q", "k", "v", "beta", "decay", "state"]
    )
    return dq, dk, dv, dbeta, *((ddecay, None) if log_decay is not None else (None, ddecay)), dstate, None
