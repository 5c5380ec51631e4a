"""M²RNN: a nonlinear recurrence on a matrix."""

from __future__ import annotations

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["m2rnn"]


def _shapes(q, k, v, f, weight, state, cu_seqlens):
    return [(v.shape, v.dtype), (state.shape, state.dtype)]


_op = Op("m2rnn", "q k v f weight state cu_seqlens?", {}, shapes=_shapes)


def m2rnn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    weight: Tensor,
    state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = f_t S_{t−1} + (1 − f_t) tanh(S_{t−1} W + k_t v_tᵀ), o_t = S_tᵀ q_t, with one matrix S (K, V) per head.

    Args:
        q, k: (B, T, H, K).
        v: (B, T, Hv, V); value head j uses query and key head j // (Hv / H).
        f: how much is kept, in [0, 1], (B, T, Hv).
        weight: W, (Hv, V, V) as [head, in, out].
        state: S before the first step, (B, Hv, K, V); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        o, (B, T, Hv, V) in the dtype of the inputs; and the last S in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Mishra et al. 2026, arXiv:2603.14360, and the authors' code; there is no scale on q.
    """
    sizes = _check.shapes(
        "m2rnn",
        {},
        q=(q, "B T H K"),
        k=(k, "B T H K"),
        v=(v, "B T Hv V"),
        f=(f, "B T Hv"),
        weight=(weight, "Hv V V"),
    )
    if sizes["Hv"] % sizes["H"]:
        raise InputError(
            f"m2rnn was given {sizes['Hv']} value heads and {sizes['H']} query and key heads; "
            "the value heads must be a multiple of the others."
        )
    sizes["N"] = batch = _check.state_batch("m2rnn", cu_seqlens, sizes)
    _check.shapes("m2rnn", sizes, state=(state, "N Hv K V?"))
    q, k, v = _check.together("m2rnn", q, k, v)
    dtype = accumulation_dtype(q.dtype)
    if state is None:
        state = q.new_zeros((batch, sizes["Hv"], sizes["K"], sizes["V"]), dtype=dtype)
    y, last = _op(q, k, v, f.to(dtype), weight.to(q.dtype), state.to(dtype), cu_seqlens)
    return y, last
