"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from ritornello.errors import InputError, nearest
from ritornello.typing import Tensor

__all__ = ["activation_of", "relu_squared"]


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)²."""
    return F.relu(x).square()


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu_squared": relu_squared,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


def activation_of(kind: str, name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name, for a layer of `kind`.

    Raises:
        InputError: there is none; the nearest names are offered.
    """
    if name not in _ACTIVATIONS:
        raise InputError(f"`activation` of {kind} is {name!r}. {nearest(str(name), _ACTIVATIONS)}")
    return _ACTIVATIONS[name]
