"""Newton's method over time: a nonlinear recurrence in parallel, with a bound on its error."""

from __future__ import annotations

from ritornello.method.newton.newton import Newton

__all__ = ["Newton"]
