"""The delta rule, with or without decay: S ← diag(d) S, then S ← S + β k (v − Sᵀk)ᵀ."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["delta_rule"]


def _shapes(q, k, v, beta, log_decay, decay, state, cu_seqlens, scale):
    return [(v.shape, v.dtype), (state.shape, state.dtype)]


_op = Op("delta_rule", "q k v beta log_decay? decay? state cu_seqlens?", {"scale": "float"}, shapes=_shapes)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    decay: Tensor | None = None,
    state: Tensor | None = None,
    scale: float | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S' = diag(d_t) S_{t−1}, S_t = S' + β_t k_t (v_t − S'ᵀ k_t)ᵀ, o_t = scale · S_tᵀ q_t.

    Keys are used as given: normalise them yourself (‖k‖ = 1 keeps the state bounded for 0 ≤ β ≤ 2).
    Value head j reads query and key head j // (Hv / H).

    Args:
        q, k: (B, T, H, K).
        v: (B, T, Hv, V), Hv a multiple of H.
        beta: the step size β, (B, T, Hv); above 1 the transition has negative eigenvalues.
        log_decay: log d ≤ 0, (B, T, Hv) for a scalar per head or (B, T, Hv, K) for a vector.
        decay: d itself in [−1, 1], in the same shapes; instead of `log_decay`. Neither means d = 1.
        state: S before the first step, (B, Hv, K, V); zero where None.
        scale: of the output; K**−0.5 where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        o, (B, T, Hv, V) in the dtype of the inputs; and the last S in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit, or both forms of the decay.

    Source: Yang et al. 2024, arXiv:2406.06484 (DeltaNet); with a scalar decay arXiv:2412.06464, eq. 10 (Gated
    DeltaNet); with a vector decay Kimi Team 2025, arXiv:2510.26692 (KDA).
    """
    sizes = _check.shapes(
        "delta_rule", {}, q=(q, "B T H K"), k=(k, "B T H K"), v=(v, "B T Hv V"), beta=(beta, "B T Hv")
    )
    q, k, v = _check.together("delta_rule", q, k, v)
    wide = _check.matrix_state("delta_rule", sizes, v, log_decay, decay, state, cu_seqlens)
    beta, log_decay, decay, state = wide(beta), wide(log_decay), wide(decay), wide.state(state)
    return _op(q, k, v, beta, log_decay, decay, state, cu_seqlens, sizes["K"] ** -0.5 if scale is None else scale)
