"""ParaRNN's long short-term memory: coupled gates, peepholes, and a recurrence that is element by element."""

from __future__ import annotations

from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["para_lstm"]


def _shapes(u, weight, peephole, h, c, cu_seqlens):
    return _cell.like_u(u, h, c)


_op = Op("para_lstm", "u weight peephole h c cu_seqlens?", {}, shapes=_shapes, states=("h", "c"))


def para_lstm(
    u: Tensor,
    weight: Tensor,
    peephole: Tensor,
    state: tuple[Tensor, Tensor] | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """f = σ(u_f + a_f ⊙ h_{t−1} + p_f ⊙ c_{t−1}), g = tanh(u_g + a_g ⊙ h_{t−1}); c_t = f ⊙ c_{t−1} + (1 − f) ⊙ g;
    o = σ(u_o + a_o ⊙ h_{t−1} + p_o ⊙ c_t); h_t = o ⊙ tanh(c_t).

    Args:
        u: the gates' share of the input, biases included, (B, T, 3, D) in the order f, o, g.
        weight: a, (3, D) in the same order.
        peephole: p, (2, D), of f and o.
        state: (h, c), each (B, D); zeros where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and (h, c) in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Danieli et al. 2025, arXiv:2510.21450, eq. 3.1b; the order of the gates is that of the authors' code.
    """
    weights = {"weight": (weight, "G D"), "peephole": (peephole, "P D")}
    u, (weight, peephole), states = _cell.prepare("para_lstm", u, 3, weights, state, "h c", cu_seqlens)
    y, h, c = _op(u, weight, peephole, *states, cu_seqlens)
    return y, (h, c)
