"""The short causal convolution that stands before many recurrences."""

from __future__ import annotations

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["causal_conv"]


def _shapes(x, weight, bias, state, cu_seqlens, activation):
    return [(x.shape, x.dtype), (state.shape, state.dtype)]


_op = Op("causal_conv", "x weight bias? state cu_seqlens?", {"activation": "str?"}, shapes=_shapes)


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y_t = act(bias + Σ_{j<W} weight_j ⊙ x_{t−W+1+j}), each channel for itself.

    Args:
        x: (B, T, D).
        weight: (D, W), the last tap on the present.
        bias: (D,); none where None.
        activation: ``"silu"`` or None.
        state: the W − 1 inputs before the first step, oldest first, (B, D, W − 1); zeros where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        y, (B, T, D); and the last W − 1 inputs, (B, D, W − 1); both in the dtype of `x`.

    Raises:
        InputError: shapes or dtypes that do not fit, or an unknown activation.

    Source: torch.nn.functional.conv1d with ``groups=D``, the state standing where its padding would.
    """
    if activation not in (None, "silu"):
        raise InputError(f"`activation` of causal_conv is {activation!r}; it takes 'silu' or None.")
    sizes = _check.shapes("causal_conv", {}, x=(x, "B T D"), weight=(weight, "D W"), bias=(bias, "D?"))
    if sizes["W"] < 1:
        raise InputError(f"`weight` of causal_conv has shape {tuple(weight.shape)}; wanted at least one tap.")
    sizes["N"] = batch = _check.state_batch("causal_conv", cu_seqlens, sizes)
    sizes["W-1"] = sizes["W"] - 1
    _check.shapes("causal_conv", sizes, state=(state, "N D W-1?"))
    (x,) = _check.together("causal_conv", x)
    state = x.new_zeros(batch, sizes["D"], sizes["W"] - 1) if state is None else state.to(x.dtype)
    return _op(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), state, cu_seqlens, activation)
