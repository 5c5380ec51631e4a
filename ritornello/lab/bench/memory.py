"""The memory that a call takes at its peak, beyond what was there before it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ritornello.typing import Tensor

__all__ = ["peak_share"]

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
PEAK_RESET = "5"  # of Linux: the highest resident size starts anew
LEAST = 8 << 20
"""Bytes of results below which the granularity of pages and heaps would be what is measured."""


def peak_share(call: Callable[[], Any]) -> float | None:
    """The peak of a call that returns its outputs and its inputs' gradients, as a multiple of their bytes.

    What it returns is counted in the peak: 1 is the least there can be. None where the system does not tell the
    resident size, or there are no results, or ones too small to measure.
    """
    if not sys.platform.startswith("linux") or not RESET.exists():
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # or what earlier calls freed would be used again, and not seen
        trim(0)
    try:
        RESET.write_text(PEAK_RESET)
    except OSError:  # a container may forbid it
        return None
    before = _resident("VmRSS")
    returned = call()
    peak = _resident("VmHWM") - before
    results = [r for r in returned if isinstance(r, Tensor)] if isinstance(returned, tuple) else []
    size = sum(r.nbytes for r in results)
    return peak / size if size >= LEAST else None


def _resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
