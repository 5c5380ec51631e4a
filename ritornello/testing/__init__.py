"""Conformance: what a layer or a kernel of ours, or of anyone's, has to satisfy. Nothing in the library imports it."""

from __future__ import annotations

from ritornello.testing.conformance import check_layer
from ritornello.testing.subject import Subject

__all__ = ["Subject", "check_layer"]
