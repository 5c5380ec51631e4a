"""The diagonal scan, h ← a ⊙ h + b."""

from __future__ import annotations

import torch

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import FLOATING, Tensor

__all__ = ["diagonal_scan"]


def _shapes(a, b, state, cu_seqlens):
    return [(b.shape, b.dtype), (state.shape, state.dtype)]


_op = Op("diagonal_scan", "a b state cu_seqlens?", {}, shapes=_shapes)


def diagonal_scan(
    a: Tensor, b: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = a_t ⊙ h_{t−1} + b_t, for all times.

    Args:
        a: (B, T, \\*S), real of any sign, or complex.
        b: (B, T, \\*S), likewise.
        state: h before the first step, (B, \\*S); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h at all times, (B, T, \\*S) in the dtype of `a` and `b`; and the last h, (B, \\*S) in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Martin and Cundy 2018, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length", arXiv:1709.04057.
    """
    _check.tensors("diagonal_scan", a=a, b=b)
    if b.dim() < 2 or a.shape != b.shape:
        raise InputError(
            f"`a` and `b` of diagonal_scan have shapes {tuple(a.shape)} and {tuple(b.shape)}; wanted one shape "
            "(B, T, ...) for both. Expand the smaller one."
        )
    dtype = torch.promote_types(a.dtype, b.dtype)
    if dtype not in FLOATING and not dtype.is_complex:
        raise InputError(f"diagonal_scan was given {dtype}; it takes floating or complex tensors.")
    if isinstance(state, Tensor) and state.is_complex() and not dtype.is_complex:
        raise InputError(
            f"`state` of diagonal_scan is {state.dtype}, and `a` and `b` are {dtype}: the results would lose its "
            "imaginary part. Make `b` complex as well."
        )
    a, b = a.to(dtype), b.to(dtype)
    return _op(a, b, _check.channel_state("diagonal_scan", state, b, cu_seqlens), cu_seqlens)
