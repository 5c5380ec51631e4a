"""Elman's simple recurrent network."""

from __future__ import annotations

from ritornello.errors import InputError
from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["elman"]


def _shapes(u, weight, state, cu_seqlens, activation):
    return _cell.like_u(u, state)


_op = Op("elman", "u weight state cu_seqlens?", {"activation": "str"}, shapes=_shapes)


def elman(
    u: Tensor,
    weight: Tensor,
    state: Tensor | None = None,
    activation: str = "tanh",
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = φ(u_t + R h_{t−1}), φ = tanh or relu.

    Args:
        u: what comes from the input, biases included, (B, T, D).
        weight: R, (H, d, d) as [head, out, in] with H·d = D; one head is a dense matrix.
        state: h before the first step, (B, D); zero where None.
        activation: ``"tanh"`` or ``"relu"``.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and the last h in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit, or another activation.

    Source: Elman 1990, "Finding structure in time"; torch.nn.RNN.
    """
    if activation not in ("tanh", "relu"):
        raise InputError(f"`activation` of elman is {activation!r}; it takes 'tanh' or 'relu'.")
    u, (weight,), (h,) = _cell.prepare("elman", u, 0, {"weight": (weight, "H d d")}, state, "h", cu_seqlens)
    return _op(u, weight, h, cu_seqlens, activation)
