"""Numbers of a tensor in Python, on which what a layer does next depends."""

from __future__ import annotations

from typing import Any

import torch

from ritornello.errors import BackendError
from ritornello.typing import Tensor

__all__ = ["is_mapped", "numbers"]

_functorch: Any = torch._C._functorch  # type: ignore[attr-defined]


def is_mapped(tensor: Tensor) -> bool:
    """Whether vmap lets this tensor stand for many."""
    return not torch.compiler.is_compiling() and _functorch.is_batchedtensor(tensor)


def numbers(what: str, tensor: Tensor) -> Any:
    """``tensor.tolist()``.

    Raises:
        BackendError: under torch.func.vmap, with other numbers for each of what it maps over.
    """
    if is_mapped(tensor):
        raise BackendError(
            f"{what} does one thing or another by numbers, of which torch.func.vmap has many at once. Put what is "
            "mapped over into the batch, or loop over it."
        )
    return tensor.tolist()
