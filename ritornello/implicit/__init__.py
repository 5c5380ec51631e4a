"""Recurrences whose step is an equation: the cell as a person writes it, and what solves the equation."""

from __future__ import annotations

from ritornello.implicit._anderson import Found, fixed_point, rounding
from ritornello.implicit._gradient import EVERY, attach, first_only
from ritornello.implicit._weights import Weights
from ritornello.implicit.cell import ImplicitCell, Outputs

__all__ = ["EVERY", "Found", "ImplicitCell", "Outputs", "Weights", "attach", "first_only", "fixed_point", "rounding"]
