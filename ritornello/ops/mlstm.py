"""The matrix LSTM of xLSTM: exponential gates, a normaliser and a stabiliser."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["mlstm"]


def _shapes(q, k, v, i, f, C, n, m, cu_seqlens, scale, eps):
    return [(v.shape, v.dtype), *((s.shape, s.dtype) for s in (C, n, m))]


_op = Op(
    "mlstm",
    "q k v i f C n m cu_seqlens?",
    {"scale": "float", "eps": "float"},
    shapes=_shapes,
    states=("C", "n", "m"),
    fixed=(3,),
)


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: tuple[Tensor, Tensor, Tensor] | None = None,
    scale: float | None = None,
    eps: float = 1e-6,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """m_t = max(log σ(f_t) + m_{t−1}, i_t); C and n ← e^{log σ(f_t) + m_{t−1} − m_t} (C, n) + e^{i_t − m_t} (k_t v_tᵀ,
    k_t); o_t = C_tᵀ q / (max(|n_tᵀ q|, e^{−m_t}) + eps), with q = scale · q_t.

    Args:
        q, k: (B, T, H, K).
        v: (B, T, H, V).
        i, f: the input and forget gates before their activation, (B, T, H).
        state: (C, n, m) of shapes (B, H, K, V), (B, H, K), (B, H); zeros where None. m is not differentiated, and C and
            n are defined up to it: compare C·eᵐ and n·eᵐ.
        scale: of the query; K**−0.5 where None.
        eps: added to the normaliser.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        o, (B, T, H, V) in the dtype of the inputs; and (C, n, m) in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 19–27, with the state normalised as in its appendix A.
    """
    pattern = "B T H"
    sizes = _check.shapes(
        "mlstm", {}, q=(q, "B T H K"), k=(k, "B T H K"), v=(v, "B T H V"), i=(i, pattern), f=(f, pattern)
    )
    sizes["N"] = batch = _check.state_batch("mlstm", cu_seqlens, sizes)
    q, k, v = _check.together("mlstm", q, k, v)
    shape = batch, sizes["H"], sizes["K"], sizes["V"]
    wide = _check.Wide(q, shape)
    starts = (q.new_zeros(shape[:dims], dtype=wide.dtype) for dims in (4, 3, 2))
    C, n, m = starts if state is None else _check.parts("mlstm", state, "C n m")
    _check.shapes("mlstm", sizes, **{"state C": (C, "N H K V"), "state n": (n, "N H K"), "state m": (m, "N H")})
    scale = sizes["K"] ** -0.5 if scale is None else scale
    o, *last = _op(q, k, v, *map(wide, (i, f, C, n, m)), cu_seqlens, scale, eps)
    return o, tuple(last)
