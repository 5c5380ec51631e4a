"""The gated linear unit with silu."""

from __future__ import annotations

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["swiglu"]


def _shapes(gate, up):
    return [(gate.shape, gate.dtype)]


_op = Op("swiglu", "gate up", {}, shapes=_shapes, states=())


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = silu(gate) ⊙ up, computed in float32 or wider.

    Args:
        gate: (..., D).
        up: (..., D). Both may be views, such as the halves of one projection: their rows are read where they lie.

    Returns:
        (..., D), in the wider of the two dtypes.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Shazeer 2020, arXiv:2002.05202, eq. 6.
    """
    _check.tensors("swiglu", gate=gate, up=up)
    if gate.shape != up.shape or gate.dim() == 0:
        raise InputError(
            f"`gate` and `up` of swiglu have shapes {tuple(gate.shape)} and {tuple(up.shape)}; "
            "wanted the same, (..., D), such as the halves of one projection."
        )
    gate, up = _check.together("swiglu", gate, up)
    return _op(gate, up)[0]
