"""The softmax monoid: a running, optionally decaying, softmax average."""

from __future__ import annotations

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["softmax_scan"]


def _shapes(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens):
    return [(values.shape, values.dtype), *((s.shape, s.dtype) for s in (m, numerator, denominator))]


_op = Op(
    "softmax_scan",
    "logits values log_decay? bonus? m numerator denominator cu_seqlens?",
    {},
    shapes=_shapes,
    states=("m", "numerator", "denominator"),
    fixed=(1,),
)


def softmax_scan(
    logits: Tensor,
    values: Tensor,
    log_decay: Tensor | None = None,
    state: tuple[Tensor, Tensor, Tensor] | None = None,
    *,
    bonus: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """y_t = Σ_{s≤t} w_{ts} v_s / Σ_{s≤t} w_{ts} with w_{ts} = exp(logit_s + Σ_{s<r≤t} log d_r).

    Kept as (m, u, w), the largest exponent, the numerator and the denominator, both divided by eᵐ:
    m' = max(log d + m, logit); u' = e^{log d + m − m'} u + e^{logit − m'} v; w' likewise with 1; y = u' / w'.
    With a bonus b the output reads the state before the update, and the present with weight exp(logit_t + b).

    Args:
        logits: (B, T, \\*S).
        values: (B, T, \\*S) or (B, T, \\*S, V): one logit may weigh a vector.
        log_decay: ≤ 0, (B, T, \\*S); none where None.
        state: (m, u, w) of shapes (B, \\*S), (B, \\*S[, V]), (B, \\*S); empty (m = −∞) where None. m is not
            differentiated, and u and w are defined up to it: compare u·eᵐ and w·eᵐ.
        bonus: \\*S, of RWKV-4.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        y in the shape and dtype of `values`; and (m, u, w) in float32 or wider. Where nothing has a weight, y is zero.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Feng et al. 2024, "Attention as an RNN", arXiv:2405.13956, section 3.2; decay and bonus as in RWKV-4, Peng
    et al. 2023, arXiv:2305.13048, eq. 16 and appendix D.
    """
    _check.tensors("softmax_scan", logits=logits, values=values)
    inner = logits.shape[2:]
    if logits.dim() < 2 or values.shape[: logits.dim()] != logits.shape or values.dim() > logits.dim() + 1:
        raise InputError(
            f"`values` of softmax_scan has shape {tuple(values.shape)} beside `logits` {tuple(logits.shape)}; wanted "
            "the shape of `logits`, or that and one more dimension."
        )
    for name, given, wanted in (("log_decay", log_decay, logits.shape), ("bonus", bonus, inner)):
        if given is not None and given.shape != wanted:
            raise InputError(f"`{name}` of softmax_scan has shape {tuple(given.shape)}; wanted {tuple(wanted)}.")
    batch = _check.state_batch("softmax_scan", cu_seqlens, {"B": logits.shape[0], "T": logits.shape[1]})
    (values,) = _check.together("softmax_scan", values)
    dtype = accumulation_dtype(values.dtype)
    wanted = (batch, *inner), (batch, *values.shape[2:]), (batch, *inner)
    state = _check.parts("softmax_scan", state, "m numerator denominator")
    m, u, w = _start(values, wanted, dtype) if state is None else state
    for name, given, shape in zip(("m", "numerator", "denominator"), (m, u, w), wanted, strict=True):
        if given.shape != shape:
            raise InputError(f"`state` of softmax_scan has {name} {tuple(given.shape)}; wanted {tuple(shape)}.")
    log_decay, bonus = (None if t is None else t.to(dtype) for t in (log_decay, bonus))
    # The kernels find their device and sizes in the first tensor: the logits, in the accumulation dtype.
    y, *last = _op(logits.to(dtype), values, log_decay, bonus, *(s.to(dtype) for s in (m, u, w)), cu_seqlens)
    return y, tuple(last)


def _start(values: Tensor, shapes, dtype):
    """Nothing read yet: no weight has an exponent."""
    m, u, w = shapes
    empty = values.new_full(m, float("-inf"), dtype=dtype)
    return empty, values.new_zeros(u, dtype=dtype), values.new_zeros(w, dtype=dtype)
