"""Linear attention with decay: S ← diag(d) S + k vᵀ, o = scale · Sᵀ q."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["linear_attention"]


def _shapes(q, k, v, log_decay, decay, bonus, state, cu_seqlens, scale):
    return [(v.shape, v.dtype), (state.shape, state.dtype)]


_op = Op(
    "linear_attention",
    "q k v log_decay? decay? bonus? state cu_seqlens?",
    {"scale": "float"},
    shapes=_shapes,
)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    decay: Tensor | None = None,
    bonus: Tensor | None = None,
    state: Tensor | None = None,
    scale: float | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = diag(d_t) S_{t−1} + k_t v_tᵀ, o_t = scale · S_tᵀ q_t; with a bonus u, o_t = scale · (S_{t−1} + diag(u) k_t
    v_tᵀ)ᵀ q_t.

    Value head j reads query and key head j // (Hv / H).

    Args:
        q, k: (B, T, H, K).
        v: (B, T, Hv, V), Hv a multiple of H.
        log_decay: log d ≤ 0, (B, T, Hv) for a scalar per head or (B, T, Hv, K) for a vector.
        decay: d itself in [−1, 1], in the same shapes; instead of `log_decay`. Neither means d = 1.
        bonus: u, (Hv, K): the state is read before the update, the present through `bonus` (RWKV-5 and 6).
        state: S before the first step, (B, Hv, K, V); zero where None.
        scale: of the output; K**−0.5 where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        o, (B, T, Hv, V) in the dtype of the inputs; and the last S in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit, or both forms of the decay.

    Source: Katharopoulos et al. 2020, arXiv:2006.16236; decay as in GLA, Yang et al. 2023, arXiv:2312.06635, eq. 3;
    bonus as in RWKV-5/6, Peng et al. 2024, arXiv:2404.05892, eq. 16.
    """
    sizes = _check.shapes("linear_attention", {}, q=(q, "B T H K"), k=(k, "B T H K"), v=(v, "B T Hv V"))
    q, k, v = _check.together("linear_attention", q, k, v)
    wide = _check.matrix_state("linear_attention", sizes, v, log_decay, decay, state, cu_seqlens)
    _check.shapes("linear_attention", sizes, bonus=(bonus, "Hv K?"))
    log_decay, decay, bonus, state = wide(log_decay), wide(decay), wide(bonus), wide.state(state)
    return _op(q, k, v, log_decay, decay, bonus, state, cu_seqlens, sizes["K"] ** -0.5 if scale is None else scale)
