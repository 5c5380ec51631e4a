"""How long a layer may train: seconds of this machine, steps, or floating-point operations."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ritornello.errors import InputError

__all__ = ["SWEEP", "Budget"]

SWEEP = 0.25
"""The part of a budget in seconds that goes into finding the learning rate; the seeds share the rest."""

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
FORM = re.compile(r"(?P<amount>\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(?P<unit>[a-z]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """What one layer may spend on one task.

    In seconds it is everything that happens for the layer and the task on the whole machine: the sweep of learning
    rates, all seeds, their evaluation. In steps or FLOP it is the training of one seed; the sweep comes on top.

    Args:
        amount: of the unit.
        unit: ``"s"``, ``"steps"`` or ``"FLOP"``.
    """

    amount: float
    unit: str

    @staticmethod
    def parse(words: str) -> Budget:
        """``"60s"``, ``"2m"``, ``"1h"``; ``"500"`` or ``"500steps"``; ``"1e12FLOP"``.

        Raises:
            InputError: another form, or not above zero.
        """
        found = FORM.fullmatch(words.strip())
        unit = found["unit"].lower() if found else ""
        if found is None or unit not in {*SECONDS, "", "step", "steps", "flop", "flops"}:
            raise InputError(f"`budget` is {words!r}; wanted seconds like 60s or 2m, steps like 500, or 1e12FLOP.")
        amount = float(found["amount"])
        if unit in SECONDS:
            budget = Budget(amount * SECONDS[unit], "s")
        else:
            budget = Budget(amount, "FLOP" if unit.startswith("flop") else "steps")
        if budget.amount <= 0 or (budget.unit == "steps" and budget.amount < 1):
            raise InputError(f"`budget` is {words!r}, too small for one step of training. Give more, e.g. 60s.")
        return budget

    def __str__(self) -> str:
        return f"{self.amount:g}{'s' if self.unit == 's' else ' ' + self.unit}"

    def seed_seconds(self, workers: int, seeds: int) -> float | None:
        """Seconds of one worker for one seed; None where the budget is not in seconds."""
        return self.amount * workers * (1 - SWEEP) / seeds if self.unit == "s" else None

    def sweep_seconds(self, workers: int) -> float | None:
        """Seconds of one worker for the sweep; None where the budget is not in seconds."""
        return self.amount * workers * SWEEP if self.unit == "s" else None

    def steps(self, step_seconds: float, step_flops: float, seconds: float | None) -> int:
        """How many steps a seed trains, each of `step_seconds` and `step_flops`, in `seconds` of one worker."""
        if self.unit == "steps":
            return int(self.amount)
        if self.unit == "FLOP":
            return int(self.amount / step_flops)
        assert seconds is not None
        return int(seconds / step_seconds)
