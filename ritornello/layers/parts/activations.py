"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from ritornello.errors import InputError, nearest
from ritornello.typing import Tensor

__all__ = ["activation_of", "relu_squared", "soft_cap"]


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)²."""
    return F.relu(x).square()


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(x / cap): x where it is small, and never beyond ±cap. x itself where `cap` is None."""
    return x if cap is None else cap * torch.tanh(x / cap)


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
