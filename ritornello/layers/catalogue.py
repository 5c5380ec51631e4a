"""The layers by name."""

from __future__ import annotations

import inspect
from typing import Any

from ritornello.errors import InputError, nearest
from ritornello.layers.base import Layer

__all__ = ["build", "catalogue", "find", "register"]

_layers: dict[str, type[Layer]] = {}


def register(name: str, cls: type[Layer]) -> type[Layer]:
    """Put a layer of one's own into the catalogue, under the name by which patterns, the command line and tests call
    it.

    Raises:
        InputError: not a Layer, or a name that another class has.
    """
    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise InputError(f"`cls` of register is {cls!r}; wanted a subclass of ritornello.layers.Layer.")
    if _layers.get(name, cls) is not cls:
        raise InputError(f"The name {name!r} belongs to {_layers[name].__name__}. Choose another one.")
    _layers[name] = cls
    return cls


def catalogue(role: str = "mixer") -> dict[str, type[Layer]]:
    """Name → class, of every sequence mixer (or with ``role="feed_forward"`` of every feed-forward), sorted by name."""
    return {n: c for n, c in sorted(_layers.items()) if c.traits.role == role}


def find(name: str) -> type[Layer]:
    """The layer of that name, mixer or feed-forward.

    Raises:
        InputError: there is none; the nearest names are offered.
    """
    if name not in _layers:
        raise InputError(f"There is no layer {name!r}. {nearest(name, _layers)}")
    return _layers[name]


def build(name: str, width: int, **options: Any) -> Layer:
    """A layer by name. What it does not know is refused with the options it has."""
    cls = find(name)
    try:
        return cls(width, **options)
    except TypeError as error:
        parameters = inspect.signature(cls).parameters
        known = [p for p in parameters if p not in ("width", "base")] + ["direction"]
        if unknown := sorted(set(options) - set(known)):
            raise InputError(f"Layer {name!r} has no option {unknown[0]!r}. {nearest(unknown[0], known)}") from error
        for option, value in options.items():  # a word of a command line where a number is wanted
            if isinstance(value, str) and option in parameters and "str" not in str(parameters[option].annotation):
                wanted = str(parameters[option].annotation).replace(" | ", " or ")
                raise InputError(f"`{option}` of {name} is {value!r}; wanted {wanted}.") from error
        raise
