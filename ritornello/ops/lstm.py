"""The long short-term memory."""

from __future__ import annotations

from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["lstm"]


def _shapes(u, weight, h, c, cu_seqlens):
    return _cell.like_u(u, h, c)


_op = Op("lstm", "u weight h c cu_seqlens?", {}, shapes=_shapes, states=("h", "c"))


def lstm(
    u: Tensor,
    weight: Tensor,
    state: tuple[Tensor, Tensor] | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """i, f, g, o = u_t + R h_{t−1}; c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g); h_t = σ(o) ⊙ tanh(c_t).

    Args:
        u: the gates' share of the input, biases included, (B, T, 4, D) in the order i, f, g, o of torch.nn.LSTM.
        weight: R, (4, H, d, d) as [gate, head, out, in] with H·d = D; one head is a dense matrix.
        state: (h, c), each (B, D); zeros where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and (h, c) in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; torch.nn.LSTM.
    """
    u, (weight,), states = _cell.prepare("lstm", u, 4, {"weight": (weight, "G H d d")}, state, "h c", cu_seqlens)
    y, h, c = _op(u, weight, *states, cu_seqlens)
    return y, (h, c)
