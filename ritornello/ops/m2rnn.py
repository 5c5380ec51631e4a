"""M²RNN: a nonlinear recurrence on a matrix."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

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
    q, k, v = _check.together("m2rnn", q, k, v)
    wide = _check.matrix_state("m2rnn", sizes, v, None, None, state, cu_seqlens)
    return _op(q, k, v, wide(f), weight.to(q.dtype), wide.state(state), cu_seqlens)
