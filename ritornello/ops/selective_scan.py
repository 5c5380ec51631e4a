"""Mamba's selective scan: h ← e^{ΔA} h + Δ B x, y = C h + D x."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["selective_scan"]


def _shapes(x, delta, A, B, C, D, state, cu_seqlens, signed):
    return [(x.shape, x.dtype), (state.shape, state.dtype)]


_op = Op("selective_scan", "x delta A B C D? state cu_seqlens?", {"signed": "bool"}, shapes=_shapes)


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    signed: bool = False,
    state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = e^{Δ_t A} ⊙ h_{t−1} + Δ_t x_t B_tᵀ, y_t = h_t C_t + D ⊙ x_t; the state h (D, N) is never stored over time.

    Args:
        x: (B, T, D).
        delta: the step size Δ > 0, after its softplus, (B, T, D).
        A: (D, N), negative.
        B, C: (B, T, N).
        D: (D,), the skip; none where None.
        signed: use 2 e^{Δ A} − 1 in place of e^{Δ A}, which lies in (−1, 1).
        state: h before the first step, (B, D, N); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        y, (B, T, D) in the dtype of the inputs; and the last h in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Gu and Dao 2023, arXiv:2312.00752, eq. 2 and 4 with the simplified discretisation of B;
    signed: Grazzi et al. 2024, arXiv:2411.12537, section 4.2.
    """
    sizes = _check.shapes(
        "selective_scan",
        {},
        **{
            "x": (x, "B T D"),
            "delta": (delta, "B T D"),
            "A": (A, "D N"),
            "B": (B, "B T N"),
            "C": (C, "B T N"),
            "D": (D, "D?"),
        },
    )
    sizes["batch"] = batch = _check.state_batch("selective_scan", cu_seqlens, sizes)
    _check.shapes("selective_scan", sizes, state=(state, "batch D N?"))
    x, delta, B, C = _check.together("selective_scan", x, delta, B, C)
    dtype = accumulation_dtype(x.dtype)
    state = x.new_zeros((batch, *A.shape), dtype=dtype) if state is None else state.to(dtype)
    return _op(x, delta, A.to(dtype), B, C, None if D is None else D.to(dtype), state, cu_seqlens, signed)
