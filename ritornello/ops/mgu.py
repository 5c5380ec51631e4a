"""The minimal gated unit."""

from __future__ import annotations

from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["mgu"]


def _shapes(u, weight, state, cu_seqlens):
    return _cell.like_u(u, state)


_op = Op("mgu", "u weight state cu_seqlens?", {}, shapes=_shapes)


def mgu(
    u: Tensor, weight: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """f = σ(u_f + R_f h_{t−1}), n = tanh(u_n + R_n (f ⊙ h_{t−1})); h_t = (1 − f) ⊙ h_{t−1} + f ⊙ n.

    Args:
        u: the gates' share of the input, biases included, (B, T, 2, D) in the order f, n.
        weight: R, (2, H, d, d) as [gate, head, out, in] with H·d = D; one head is a dense matrix.
        state: h before the first step, (B, D); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and the last h in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Zhou et al. 2016, arXiv:1603.09420, table 2.
    """
    u, (weight,), (h,) = _cell.prepare("mgu", u, 2, {"weight": (weight, "G H d d")}, state, "h", cu_seqlens)
    return _op(u, weight, h, cu_seqlens)
