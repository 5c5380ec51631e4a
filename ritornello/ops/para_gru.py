"""ParaRNN's gated recurrent unit, whose recurrence is element by element."""

from __future__ import annotations

from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["para_gru"]


def _shapes(u, weight, state, cu_seqlens):
    return _cell.like_u(u, state)


_op = Op("para_gru", "u weight state cu_seqlens?", {}, shapes=_shapes)


def para_gru(
    u: Tensor,
    weight: Tensor,
    state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z = σ(u_z + a_z ⊙ h_{t−1}), r = σ(u_r + a_r ⊙ h_{t−1}), c = tanh(u_c + a_c ⊙ h_{t−1} ⊙ r);
    h_t = (1 − z) ⊙ h_{t−1} + z ⊙ c.

    Args:
        u: the gates' share of the input, biases included, (B, T, 3, D) in the order z, r, c.
        weight: a, (3, D) in the same order.
        state: h before the first step, (B, D); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and the last h in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Danieli et al. 2025, arXiv:2510.21450, eq. 3.1a.
    """
    u, (weight,), (h,) = _cell.prepare("para_gru", u, 3, {"weight": (weight, "G D")}, state, "h", cu_seqlens)
    return _op(u, weight, h, cu_seqlens)
