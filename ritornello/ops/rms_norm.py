"""The root-mean-square norm, with the gate that often multiplies it."""

from __future__ import annotations

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["rms_norm"]


def _shapes(x, weight, gate, eps):
    return [(x.shape, x.dtype)]


_op = Op("rms_norm", "x weight? gate?", {"eps": "float"}, shapes=_shapes, states=())


def rms_norm(x: Tensor, weight: Tensor | None = None, gate: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """y = x / √(mean(x²) + eps) ⊙ weight ⊙ silu(gate), over the last dimension, computed in float32 or wider.

    Args:
        x: (..., D).
        weight: (D,), of any floating dtype; ones where None.
        gate: (..., D), the shape of `x`; no gate where None.
        eps: added to the mean square.

    Returns:
        (..., D), in the dtype of `x`.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    _check.tensors("rms_norm", x=x)
    if x.dim() == 0:
        raise InputError("`x` of rms_norm is a scalar; wanted (..., D). Give it a dimension to take the mean over.")
    if weight is not None and weight.shape != x.shape[-1:]:
        raise InputError(
            f"`weight` of rms_norm has shape {tuple(weight.shape)}; wanted ({x.shape[-1]},), the last dimension of `x`."
        )
    if gate is not None:
        if gate.shape != x.shape:
            raise InputError(
                f"`gate` of rms_norm has shape {tuple(gate.shape)}; wanted {tuple(x.shape)}, the shape of `x`."
            )
        gate = gate if gate.dtype == x.dtype else gate.to(x.dtype)
    (x,) = _check.together("rms_norm", x)
    return _op(x, weight, gate, eps)[0]
