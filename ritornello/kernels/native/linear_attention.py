"""Linear attention with decay or a bonus: one case of the matrix-state kernels."""

from __future__ import annotations

from ritornello.kernels.native import _matrix

__all__ = ["backward", "forward", "trace_size"]


def _arguments(q, k, v, log_decay, decay, bonus, state, cu_seqlens, scale):
    mode = _matrix.LINEAR if bonus is None else _matrix.BONUS
    logged = log_decay is not None
    decay = log_decay if logged else decay
    return _matrix.Arguments(mode, q, k, v, state, cu_seqlens, scale, decay=decay, logged=logged, bonus=bonus)


def trace_size(q, k, v, log_decay, decay, bonus, state, cu_seqlens, scale):
    return _matrix.trace_size(v, state, cu_seqlens, keeps=False)


def forward(*arguments):
    *arguments, save = arguments
    o, last, trace = _matrix.forward(_arguments(*arguments), save)
    return (o, last), trace


def backward(grads, trace, needs, *arguments):
    names = ("q", "k", "v", "decay", "decay", "bonus", "state", "cu_seqlens")
    return _matrix.backward(_arguments(*arguments), grads, trace, needs, names)
