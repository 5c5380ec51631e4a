"""What the wrappers of the kernels share: addresses, strides and packed sequences."""

from __future__ import annotations

import ctypes
import sys
from typing import overload

import torch

from ritornello.typing import Tensor

__all__ = [
    "address",
    "blank",
    "contiguous",
    "dense",
    "grid",
    "rows",
    "slots",
    "starts",
    "strides",
    "untouched",
    "zero_tail",
]


def address(tensor: Tensor | None) -> int:
    """Where its first element lies; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


LARGE = 32 << 20
PAGE = 2 << 20
HUGE_PAGES = 14  # MADV_HUGEPAGE of Linux


def blank(like: Tensor) -> Tensor:
    """Contiguous memory of the same shape and dtype: a third of the time of `Tensor.new_empty`."""
    return untouched(torch.empty_like(like, memory_format=torch.contiguous_format))


def untouched(tensor: Tensor) -> Tensor:
    """A tensor that nobody has written to yet, its memory in huge pages where it is LARGE.

    Memory of that size comes fresh from the system, and small pages, one fault each, cost more than filling it: twice
    the time at 256 MB. Huge pages are asked for; where the system has none to give, nothing changes.
    """
    if tensor.nbytes >= LARGE and _advise is not None:
        first = -(-tensor.data_ptr() // PAGE) * PAGE
        _advise(first, (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE - first, HUGE_PAGES)
    return tensor


def _madvise():
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    return function


_advise = _madvise()


@overload
def dense(tensor: Tensor) -> Tensor: ...
@overload
def dense(tensor: None) -> None: ...
def dense(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself where its last dimension is contiguous, else a contiguous copy."""
    return tensor if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()


@overload
def contiguous(tensor: Tensor) -> Tensor: ...
@overload
def contiguous(tensor: None) -> None: ...
def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def strides(tensor: Tensor | None) -> tuple[int, ...]:
    """Of the first two dimensions; zeros for None."""
    return (0, 0) if tensor is None else tensor.stride()[:2]


def rows(tensor: Tensor) -> Tensor:
    """(B, T, \\*S) → (B, T, C), C the product of S; last dimension contiguous; a view where the strides allow it."""
    if tensor.dim() != 3:
        tensor = tensor.unsqueeze(-1) if tensor.dim() == 2 else tensor.flatten(2)
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


@overload
def grid(tensor: Tensor) -> Tensor: ...
@overload
def grid(tensor: None) -> None: ...
def grid(tensor: Tensor | None) -> Tensor | None:
    """(\\*S, M, D) → (N, M, D), N the product of S; last dimension contiguous; a view where the strides allow it."""
    if tensor is None:
        return None
    if tensor.dim() < 3:
        tensor = tensor[(None,) * (3 - tensor.dim())]
    elif tensor.dim() > 3:
        tensor = tensor.flatten(0, -3)
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def starts(cu_seqlens: Tensor | None) -> Tensor | None:
    """`cu_seqlens` as contiguous int64, which is what C reads."""
    return None if cu_seqlens is None else cu_seqlens.to(torch.int64).contiguous()


def slots(sequences: int, steps: int, interval: int, cu_seqlens: Tensor | None) -> int:
    """Places for checkpoints, one for every `interval` steps of each sequence: see rit_first_slot in src/isa.h."""
    return sequences * -(-steps // interval) if cu_seqlens is None else steps // interval + sequences


def zero_tail(cu_seqlens: Tensor | None, *tensors: Tensor | None) -> None:
    """Zeros for the times beyond the last sequence, which no kernel visits."""
    if cu_seqlens is None:
        return
    end = int(cu_seqlens[-1])
    for t in tensors:
        if t is not None and end < t.shape[1]:
            t[:, end:] = 0
