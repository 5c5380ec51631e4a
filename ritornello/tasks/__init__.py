"""Tasks: data only, one file per task or family. A task knows no model. `catalogue()` lists them by name."""

from __future__ import annotations

from ritornello.tasks.adding import Adding
from ritornello.tasks.automata import ICLL, SelectivBench
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.tasks.catalogue import catalogue, find, register
from ritornello.tasks.chaos import KuramotoSivashinsky, Lorenz96, MackeyGlass
from ritornello.tasks.copying import Copying, ReverseString, SelectiveCopying
from ritornello.tasks.cycle_navigation import CycleNavigation
from ritornello.tasks.digits import Digits
from ritornello.tasks.dyck import Counters, Dyck
from ritornello.tasks.even_pairs import EvenPairs
from ritornello.tasks.group_words import A5, S3, S4, S5, Z60
from ritornello.tasks.induction_heads import InductionHeads
from ritornello.tasks.k_hop import KHop
from ritornello.tasks.linear_regression import LinearRegression
from ritornello.tasks.listops import ListOps
from ritornello.tasks.mad import Compression, MADSelectiveCopying, Memorization
from ritornello.tasks.mad_recall import FuzzyRecall, InContextRecall, NoisyRecall
from ritornello.tasks.memory import DelayedMatch, NParity
from ritornello.tasks.modular_arithmetic import BracketedArithmetic, ModularArithmetic
from ritornello.tasks.mqar import MQAR
from ritornello.tasks.parity import Parity
from ritornello.tasks.passkey import Passkey
from ritornello.tasks.scan import Scan
from ritornello.tasks.set_disjointness import SetDisjointness
from ritornello.tasks.star_free import StarFree
from ritornello.tasks.text import Text

for _task in (
    A5,
    Adding,
    BracketedArithmetic,
    Compression,
    Copying,
    Counters,
    CycleNavigation,
    DelayedMatch,
    Digits,
    Dyck,
    EvenPairs,
    FuzzyRecall,
    ICLL,
    InContextRecall,
    InductionHeads,
    KHop,
    KuramotoSivashinsky,
    LinearRegression,
    ListOps,
    Lorenz96,
    MackeyGlass,
    MADSelectiveCopying,
    Memorization,
    ModularArithmetic,
    MQAR,
    NoisyRecall,
    NParity,
    Parity,
    Passkey,
    ReverseString,
    S3,
    S4,
    S5,
    Scan,
    SelectivBench,
    SelectiveCopying,
    SetDisjointness,
    StarFree,
    Text,
    Z60,
):
    register(_task)

__all__ = ["About", "Batch", "Figure", "Task", "Training", "catalogue", "find", "register"]
