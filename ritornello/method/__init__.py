"""Methods: how a recurrence is run, as values. All give the same numbers."""

from __future__ import annotations

from ritornello.method.auto import Auto
from ritornello.method.base import Method
from ritornello.method.chunked import Chunked
from ritornello.method.compiled import Compiled
from ritornello.method.fused import Fused
from ritornello.method.newton import Newton
from ritornello.method.scan import Scan
from ritornello.method.sequential import Sequential

__all__ = ["Auto", "Chunked", "Compiled", "Fused", "Method", "Newton", "Scan", "Sequential"]
