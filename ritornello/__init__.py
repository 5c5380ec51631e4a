"""Ritornello: recurrent sequence models. A recurrence is written once; the library runs it every way it can be run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ritornello import _interrupts

_interrupts.guard()  # before PyTorch, whose import takes a second or more

# ruff: noqa: E402
from ritornello import cells, layers, models, ops, state, transition
from ritornello._run import Result, run
from ritornello.cell import AffineCell, Cell
from ritornello.errors import (
    BackendError,
    CheckpointError,
    ConvergenceError,
    InputError,
    RitornelloError,
    StateError,
)
from ritornello.hub import load, save
from ritornello.implicit import ImplicitCell
from ritornello.kernels.registry import backend, explain
from ritornello.method import Auto, Chunked, Compiled, Fused, Method, Newton, Scan, Sequential
from ritornello.models import LanguageModel, ModelConfig, Parallel, Repeat
from ritornello.state import State

if TYPE_CHECKING:
    from ritornello import tasks

__version__ = "0.1.0"

__all__ = [
    "AffineCell",
    "Auto",
    "BackendError",
    "Cell",
    "CheckpointError",
    "Chunked",
    "Compiled",
    "ConvergenceError",
    "Fused",
    "ImplicitCell",
    "InputError",
    "LanguageModel",
    "Method",
    "ModelConfig",
    "Newton",
    "Parallel",
    "Repeat",
    "Result",
    "RitornelloError",
    "Scan",
    "Sequential",
    "State",
    "StateError",
    "backend",
    "cells",
    "explain",
    "layers",
    "load",
    "models",
    "ops",
    "run",
    "save",
    "state",
    "tasks",
    "transition",
]


def __getattr__(name: str) -> Any:
    """`tasks` is imported when it is first asked for: few need it, and it draws its tables then."""
    if name == "tasks":
        import importlib

        return importlib.import_module("ritornello.tasks")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
