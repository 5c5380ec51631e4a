"""The checks that the nonlinear cells share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.errors import InputError
from ritornello.ops import _check
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["like_u", "prepare"]

PEEPHOLES = 2


def prepare(
    op: str,
    u: Tensor,
    gates: int,
    weights: Mapping[str, tuple[Tensor | None, str]],
    state: Any,
    names: str,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, list[Any], list[Tensor]]:
    """Check the tensors of a cell and bring them to the dtypes in which its kernels take them.

    Args:
        u: (B, T, G, D), or (B, T, D) where there are 0 `gates`.
        gates: G.
        weights: by name, with their patterns; P stands for the peepholes.
        state: as the op was given it: one tensor (N, D), or a tuple of as many as it has `names`; zeros where None.

    Returns:
        u; the weights, matrices in u's dtype (the product's operands) and vectors in the accumulation dtype; and the
        tensors of the state in the accumulation dtype.
    """
    sizes = _check.shapes(op, {"G": gates, "P": PEEPHOLES}, u=(u, "B T G D" if gates else "B T D"), **weights)
    if "d" in sizes and sizes["H"] * sizes["d"] != sizes["D"]:
        raise InputError(
            f"`weight` of {op} has {sizes['H']} heads of width {sizes['d']}; u has width {sizes['D']}. "
            "The heads' widths must add up to u's."
        )
    sizes["N"] = batch = _check.state_batch(op, cu_seqlens, sizes)
    (u,) = _check.together(op, u)
    dtype = accumulation_dtype(u.dtype)
    placed = [w if w is None else w.to(u.dtype if "d" in p.split() else dtype) for w, p in weights.values()]
    parts = names.split()
    if state is None:
        return u, placed, [u.new_zeros(batch, sizes["D"], dtype=dtype) for _ in parts]
    states = [state] if len(parts) == 1 else _check.parts(op, state, names)
    _check.shapes(op, sizes, **{f"state {n}": (s, "N D") for n, s in zip(parts, states, strict=True)})
    return u, placed, [s.to(dtype) for s in states]


def like_u(u: Tensor, *states: Tensor):
    """The shapes of a cell's results: h over time, (B, T, D) in u's dtype, and its states."""
    return [((u.shape[0], u.shape[1], u.shape[-1]), u.dtype), *((s.shape, s.dtype) for s in states)]
