"""Tasks: data only, one file per task or family. A task knows no model. `catalogue()` lists them by name."""

from __future__ import annotations

from ritornello.tasks.adding import Adding
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.tasks.catalogue import catalogue, find, register
from ritornello.tasks.copying import Copying, SelectiveCopying
from ritornello.tasks.cycle_navigation import CycleNavigation
from ritornello.tasks.even_pairs import EvenPairs
from ritornello.tasks.group_words import A5, S3, S4, S5, Z60
from ritornello.tasks.induction_heads import InductionHeads
from ritornello.tasks.linear_regression import LinearRegression
from ritornello.tasks.mad import Compression, MADSelectiveCopying, Memorization
from ritornello.tasks.mad_recall import FuzzyRecall, InContextRecall, NoisyRecall
from ritornello.tasks.modular_arithmetic import BracketedArithmetic, ModularArithmetic
from ritornello.tasks.mqar import MQAR
from ritornello.tasks.parity import Parity

for _task in (
    A5,
    S3,
    S4,
    S5,
    Z60,
    Adding,
    BracketedArithmetic,
    Compression,
    Copying,
    CycleNavigation,
    EvenPairs,
    FuzzyRecall,
    InContextRecall,
    InductionHeads,
    LinearRegression,
    MADSelectiveCopying,
    Memorization,
    ModularArithmetic,
    MQAR,
    NoisyRecall,
    Parity,
    SelectiveCopying,
):
    register(_task)

__all__ = ["About", "Batch", "Figure", "Task", "Training", "catalogue", "find", "register"]
