"""The shared library: found and loaded at its first use, with ctypes.

A kernel takes one argument, a C struct of 64-bit fields, so its Python side is one `struct.pack` and one call:

    _forward = Entry("diagonal_scan_forward", "5p 7q")     # p: pointer or tensor's address, q: integer, d: double
    _forward(x.dtype, x.data_ptr(), ..., sizes, strides)

A call checks nothing. The op has checked the shapes; a kernel's wrapper is what knows its strides.
"""

from __future__ import annotations

import ctypes
import os
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ritornello.errors import BackendError
from ritornello.kernels import tape
from ritornello.kernels.native.build import LIBRARY

__all__ = ["DTYPES", "Entry", "available", "isa", "missing"]

DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
"""The dtypes of activations, and how the symbols of their kernels are called."""

REBUILD = "Run `python -m ritornello.kernels.native.build`."
CURE = (
    "The native CPU kernels are not built, so recurrences on a CPU run in plain PyTorch, many times slower. "
    f"Install a C compiler. {REBUILD}"
)


def path() -> Path:
    """The library's file; ``RITORNELLO_NATIVE_LIBRARY`` names another one, as the sanitized build does."""
    return Path(os.environ.get("RITORNELLO_NATIVE_LIBRARY") or Path(__file__).with_name(LIBRARY))


@cache
def available() -> bool:
    """Whether the library can be loaded. If not, it says so once."""
    try:
        load()
    except (OSError, AttributeError) as error:  # no such file, or one that is older than its sources
        detail = "" if not path().exists() else f" (loading {path()}: {error})"
        warnings.warn(CURE + detail, RuntimeWarning, stacklevel=2)
        return False
    return True


def missing() -> str | None:
    """Why no native kernel can run, or None."""
    return None if available() else f"its library is not built. {REBUILD.rstrip('.')}"


@cache
def load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(path()))
    library.rit_set_threads.argtypes = [ctypes.c_int64]
    library.rit_set_threads.restype = None
    library.rit_set_parting.argtypes, library.rit_set_parting.restype = [ctypes.c_int64], None
    library.rit_supports.argtypes = [ctypes.c_char_p]
    library.rit_widest.restype = ctypes.c_char_p
    library.rit_set_team.argtypes, library.rit_set_team.restype = [ctypes.c_void_p], None
    library.rit_set_team(team())
    return library


def team() -> int | None:
    """Where GOMP_parallel lies, which gives work to the threads of this process's OpenMP runtime; None without one.

    PyTorch makes its runtime known to the whole process, so its own is the one that is found.
    """
    function = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    return ctypes.cast(function, ctypes.c_void_p).value if function is not None else None


@cache
def isa() -> str:
    """The instruction set whose kernels run: the widest of this machine, or what ``RITORNELLO_ISA`` names.

    Raises:
        BackendError: RITORNELLO_ISA names one that this machine does not have.
    """
    wanted = os.environ.get("RITORNELLO_ISA")
    if not wanted:
        return load().rit_widest().decode()
    if not load().rit_supports(wanted.encode()):
        able = [name for name in ("portable", "avx2", "avx512") if load().rit_supports(name.encode())]
        raise BackendError(f"RITORNELLO_ISA is {wanted!r}; this machine runs {', '.join(able)}. Choose one, or none.")
    return wanted


def _as_struct(fields: str) -> str:
    """The fields as `struct` writes them: an address is an integer of 64 bits like the others."""
    return fields.replace(" ", "").replace("p", "q")


_threads = 1
"""As the library was last told."""


class Entry:
    """One C function in its three types, found at its first call.

    Args:
        name: without prefix and suffixes: ``rit_{name}_{type}_{isa}`` is the symbol.
        fields: the struct's fields in order: ``"3p"`` three addresses, ``"3q"`` three integers, ``"d"`` a double.
        unused: its last fields, where this function reads none of them: a call does not give them, and they are zero.
    """

    def __init__(self, name: str, fields: str, unused: str = ""):
        self.name = name
        self._pack = struct.Struct(f"@{_as_struct(fields)}{struct.calcsize(_as_struct(unused))}x").pack
        self._functions: dict[torch.dtype, Any] = {}

    def __call__(self, dtype: torch.dtype, *values: int | float) -> None:
        global _threads
        function = self._functions.get(dtype) or self._find(dtype)
        threads = torch.get_num_threads()
        if threads != _threads:
            load().rit_set_threads(threads)
            _threads = threads
        fields = self._pack(*values)
        recorder = tape.current  # read once: another thread may end its recording here
        if recorder is not None:
            recorder.native(function, fields)
        function(fields)

    def _find(self, dtype: torch.dtype):
        symbol = f"rit_{self.name}_{DTYPES[dtype]}_{isa()}"
        function = getattr(load(), symbol, None)
        if function is None:
            raise BackendError(f"{path()} has no {symbol}: it is older than its sources. {REBUILD}")
        function.argtypes, function.restype = [ctypes.c_char_p], None
        self._functions[dtype] = function
        return function
