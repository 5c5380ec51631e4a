"""Checks of what an op was given. Every message names the tensor, what it has and what was wanted."""

from __future__ import annotations

from typing import Any

import torch

from ritornello.errors import InputError
from ritornello.sequence import check_bounds
from ritornello.typing import FLOATING, Tensor, accumulation_dtype

__all__ = ["Wide", "channel_state", "matrix_state", "parts", "shapes", "state_batch", "tensors", "together"]


def shapes(op: str, sizes: dict[str, int], **tensors: tuple[Tensor | None, str]) -> dict[str, int]:
    """Check tensors against named dimensions, and return the sizes of the names.

    ``shapes("gla", {}, q=(q, "B T H K"), v=(v, "B T H V"))`` binds B, T, H, K from `q` and demands them of `v`.
    A None is passed over where the pattern ends with "?"; everything else must be a tensor.
    """
    for name, (tensor, pattern) in tensors.items():
        if not isinstance(tensor, Tensor):
            if tensor is None and pattern[-1] == "?":
                continue
            raise _no_tensor(op, name, tensor)
        wanted = pattern.rstrip("?").split()
        got = tensor.shape
        if len(got) == len(wanted):
            for letter, size in zip(wanted, got, strict=True):
                if sizes.setdefault(letter, size) != size:
                    break
            else:
                continue
        known = ", ".join(f"{letter}={sizes[letter]}" for letter in wanted if letter in sizes)
        raise InputError(
            f"`{name}` of {op} has shape {tuple(got)}; wanted ({', '.join(wanted)})"
            + (f" with {known}." if known else ".")
            + " Reshape it, or check the tensors before it."
        )
    return sizes


def tensors(op: str, **given: Any) -> None:
    """Check that these are tensors."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise _no_tensor(op, name, value)


def parts(op: str, state: Any, names: str) -> Any:
    """A state of several tensors, which must be as many as the `names` of its parts; a None stays None."""
    if state is None:
        return None
    wanted = names.split()
    if not isinstance(state, (tuple, list)) or len(state) != len(wanted):
        got = f"{len(state)} of them" if isinstance(state, (tuple, list)) else f"a {type(state).__name__}"
        raise InputError(
            f"`state` of {op} is {got}; wanted the {len(wanted)} tensors ({', '.join(wanted)}). Pass what "
            f"{op} returned as its second result, or None to start."
        )
    return state


def _no_tensor(op: str, name: str, value: Any) -> InputError:
    got = "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"
    return InputError(
        f"`{name}` of {op} is {got.replace('builtins.', '')}; wanted a torch.Tensor. Make one of it first."
    )


def together(op: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one floating dtype: where they differ (autocast leaves mixtures), the widest of them."""
    dtype = tensors[0].dtype
    for t in tensors:
        if t.dtype != dtype:
            dtype = torch.promote_types(dtype, t.dtype)
    if dtype not in FLOATING:
        raise InputError(f"{op} was given {dtype}; it takes {', '.join(str(d)[6:] for d in FLOATING)}.")
    return tuple(t if t.dtype == dtype else t.to(dtype) for t in tensors)


def matrix_state(
    op: str,
    sizes: dict[str, int],
    v: Tensor,
    log_decay: Tensor | None,
    decay: Tensor | None,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Wide:
    """Check what the ops with a matrix state share: heads, at most one form of the decay, the state and its batch.

    Returns the caster to the accumulation dtype.
    """
    if sizes["Hv"] != sizes["H"] and (sizes["H"] == 0 or sizes["Hv"] % sizes["H"]):
        raise InputError(
            f"{op} was given {sizes['Hv']} value heads and {sizes['H']} query and key heads; "
            "the value heads must be a multiple of the others."
        )
    if log_decay is not None and decay is not None:
        raise InputError(
            f"{op} was given both `log_decay` and `decay`. Give one: they are two forms of the same decay."
        )
    sizes["N"] = state_batch(op, cu_seqlens, sizes)
    given = log_decay if decay is None else decay
    pattern = "B T Hv K?" if isinstance(given, Tensor) and given.dim() == 4 else "B T Hv?"
    shapes(op, sizes, log_decay=(log_decay, pattern), decay=(decay, pattern), state=(state, "N Hv K V?"))
    return Wide(v, (sizes["N"], sizes["Hv"], sizes["K"], sizes["V"]))


def channel_state(op: str, state: Tensor | None, like: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """The state (N, \\*S) of a scan over (B, T, \\*S), checked and in the accumulation dtype; zeros where None."""
    batch = state_batch(op, cu_seqlens, {"B": like.shape[0], "T": like.shape[1]})
    shape = (batch, *like.shape[2:])
    if state is None:
        return like.new_zeros(shape, dtype=accumulation_dtype(like.dtype))
    tensors(op, state=state)
    if state.shape != shape:
        raise InputError(
            f"`state` of {op} has shape {tuple(state.shape)}; wanted {shape}, one value for each sequence and channel."
        )
    return state.to(accumulation_dtype(like.dtype))


class Wide:
    """Brings gates and states to the accumulation dtype of an input; an absent state becomes zeros."""

    def __init__(self, like: Tensor, shape: tuple[int, ...]):
        self.like, self.shape, self.dtype = like, shape, accumulation_dtype(like.dtype)

    def __call__(self, tensor: Any) -> Any:
        return tensor if tensor is None or tensor.dtype == self.dtype else tensor.to(self.dtype)

    def state(self, tensor: Tensor | None) -> Tensor:
        return self.like.new_zeros(self.shape, dtype=self.dtype) if tensor is None else self(tensor)


def state_batch(op: str, cu_seqlens: Tensor | None, sizes: dict[str, int]) -> int:
    """The batch of the state: B, or the number of sequences where they are packed. Checks `cu_seqlens`."""
    if cu_seqlens is None:
        return sizes["B"]
    check_bounds(cu_seqlens, sizes["B"], sizes["T"], f"`cu_seqlens` of {op}")
    return cu_seqlens.shape[0] - 1
