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
    return _matrix.trace_size(v, state, cu_seqlens, keeps=True)


def forward(*arguments):
    *arguments, save = arguments
    o, last, trace = _matrix.forward(_arguments(*arguments), save)
    return (o, last), trace


def backward(grads, trace, needs, *arguments):
    names = ("q", "k", "v", "beta", "decay", "decay", "state", "cu_seqlens")
    return _matrix.backward(_arguments(*arguments), grads, trace, needs, names)
