"""Diagonal plus low rank: S ← (diag(d) + b aᵀ) S + k vᵀ."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["dplr"]


def _shapes(q, k, v, a, b, log_decay, state, cu_seqlens, scale):
    return [(v.shape, v.dtype), (state.shape, state.dtype)]


_op = Op("dplr", "q k v a b log_decay state cu_seqlens?", {"scale": "float"}, shapes=_shapes)


def dplr(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    scale: float | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = (diag(d_t) + b_t a_tᵀ) S_{t−1} + k_t v_tᵀ, o_t = scale · S_tᵀ q_t.

    Args:
        q, k: (B, T, H, K).
        v: (B, T, Hv, V), Hv a multiple of H.
        a, b: (B, T, H, K): what is read from the old state, and where it is written.
        log_decay: log d ≤ 0, (B, T, Hv) for a scalar per head or (B, T, Hv, K) for a vector.
        state: S before the first step, (B, Hv, K, V); zero where None.
        scale: of the output; K**−0.5 where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        o, (B, T, Hv, V) in the dtype of the inputs; and the last S in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: RWKV-7, Peng et al. 2025, arXiv:2503.14456, eq. 17, where it is written for the transposed state with
    a = −κ̂ and b = κ̂ ⊙ a.
    """
    sizes = _check.shapes(
        "dplr", {}, q=(q, "B T H K"), k=(k, "B T H K"), v=(v, "B T Hv V"), a=(a, "B T H K"), b=(b, "B T H K")
    )
    q, k, v, a, b = _check.together("dplr", q, k, v, a, b)
    wide = _check.matrix_state("dplr", sizes, v, log_decay, None, state, cu_seqlens)
    return _op(
        q, k, v, a, b, wide(log_decay), wide.state(state), cu_seqlens, sizes["K"] ** -0.5 if scale is None else scale
    )
