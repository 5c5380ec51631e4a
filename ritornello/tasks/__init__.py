"""Tasks: data only, one file per task. A task knows no model. `catalogue()` lists them by name."""

from __future__ import annotations

from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.tasks.catalogue import catalogue, find, register
from ritornello.tasks.mqar import MQAR
from ritornello.tasks.parity import Parity

for _task in (
    MQAR,
    Parity,
):
    register(_task)

__all__ = ["About", "Batch", "Figure", "Task", "Training", "catalogue", "find", "register"]
