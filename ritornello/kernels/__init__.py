"""Kernels, by backend. Importing this declares them all and imports none of them."""

from __future__ import annotations

from ritornello.kernels import native, reference, torch, triton
from ritornello.kernels.registry import Record, backend, explain

__all__ = ["Record", "backend", "explain", "native", "reference", "torch", "triton"]
