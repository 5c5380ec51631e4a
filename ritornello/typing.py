"""Types and dtype rules that every floor shares."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["FLOATING", "Tensor", "Tree", "accumulated", "accumulation_dtype"]

Tree: TypeAlias = Any
"""A tensor, or a nest of tuples, lists and dicts of tensors (a pytree)."""

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The real dtypes that an input may have."""

_WIDE = {torch.float64: torch.float64, torch.complex128: torch.complex128, torch.complex64: torch.complex64}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states, decays and sums for inputs of `dtype`: float64 for float64, float32 below.

    Complex dtypes accumulate in themselves.
    """
    return _WIDE.get(dtype, torch.float32)


def accumulated(x: Tensor) -> Tensor:
    """x in its accumulation dtype; x itself where it is."""
    return x.to(accumulation_dtype(x.dtype))
