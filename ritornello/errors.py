"""The errors of the library: every message says what was wrong, what was got and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BackendError",
    "CheckpointError",
    "ConvergenceError",
    "InputError",
    "RitornelloError",
    "StateError",
    "nearest",
]


class RitornelloError(Exception):
    """The base of every error that the library raises on purpose."""


class InputError(RitornelloError, ValueError):
    """A value that a caller gave does not fit: its shape, dtype, name or range."""


class StateError(InputError):
    """A state of another layer, version, size or batch."""


class BackendError(InputError):
    """The backend or method that was asked for cannot run this call."""


class ConvergenceError(RitornelloError, ArithmeticError):
    """An iteration did not reach a result whose error is bounded."""


class CheckpointError(InputError):
    """A file that should hold a model or a state does not, or holds a broken one."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause that offers the names most like `name`: ``Did you mean 'gla'?``, or the whole list."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "There are: " + ", ".join(names) + "."
