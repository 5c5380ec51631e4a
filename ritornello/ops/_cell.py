"""The checks that the nonlinear cells share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["like_u", "prepare"]


def prepare(
    op: str,
    u: tuple[Tensor, str],
    weights: Mapping[str, tuple[Tensor | None, str]],
    state: dict[str, Tensor] | None,
    names: Sequence[str],
    cu_seqlens: Tensor | None,
    gates: int = 1,
) -> tuple[Tensor, list[Any], list[Tensor]]:
    """Check the tensors of a cell against their patterns; G stands for `gates`, N for the batch of the state.

    Returns u; the weights, matrices in u's dtype (the product's operands) and vectors in the accumulation dtype; and
    the state, (N, D) each in the accumulation dtype, zeros where None.
    """
    sizes = _check.shapes(op, {"G": gates}, u=u, **weights)
    if "d" in sizes and sizes["H"] * sizes["d"] != sizes["D"]:
        raise InputError(
            f"`weight` of {op} has {sizes['H']} heads of width {sizes['d']}; u has width {sizes['D']}. "
            "The heads' widths must add up to u's."
        )
    sizes["N"] = batch = _check.state_batch(op, cu_seqlens, sizes)
    (tensor,) = _check.together(op, u[0])
    dtype = accumulation_dtype(tensor.dtype)
    placed = [w if w is None else w.to(tensor.dtype if "d" in p.split() else dtype) for w, p in weights.values()]
    if state is None:
        return tensor, placed, [tensor.new_zeros(batch, sizes["D"], dtype=dtype) for _ in names]
    _check.shapes(op, sizes, **{f"state {n}": (s, "N D") for n, s in state.items()})
    return tensor, placed, [s.to(dtype) for s in state.values()]


def like_u(u: Tensor, *states: Tensor):
    """The shapes of a cell's results: h over time, (B, T, D) in u's dtype, and its states."""
    return [((u.shape[0], u.shape[1], u.shape[-1]), u.dtype), *((s.shape, s.dtype) for s in states)]
