"""The benchmark: ops, layers and models beside other libraries, in the same run, on a machine that is measured too."""

from __future__ import annotations

from ritornello.lab.bench.case import Case, Comparison, Row, Side, Work, WrongNumbersError
from ritornello.lab.bench.ceilings import Ceilings, measure_ceilings
from ritornello.lab.bench.run import ROWS, Options, Result, choose, draw, measure

__all__ = [
    "ROWS",
    "Case",
    "Ceilings",
    "Comparison",
    "Options",
    "Result",
    "Row",
    "Side",
    "Work",
    "WrongNumbersError",
    "choose",
    "draw",
    "measure",
    "measure_ceilings",
]
