"""Transitions: one step's map of the state, held for all times, with an algebra to compose, scan and summarise."""

from __future__ import annotations

from ritornello.transition.base import Transition, prefixes
from ritornello.transition.matrix import Decay, Delta, LowRank, MatrixTransition
from ritornello.transition.mlstm import MLSTM
from ritornello.transition.softmax import Softmax
from ritornello.transition.vector import Block, Dense, Diagonal, Gated, Segment, Selective

__all__ = [
    "MLSTM",
    "Block",
    "Decay",
    "Delta",
    "Dense",
    "Diagonal",
    "Gated",
    "LowRank",
    "MatrixTransition",
    "Segment",
    "Selective",
    "Softmax",
    "Transition",
    "prefixes",
]
