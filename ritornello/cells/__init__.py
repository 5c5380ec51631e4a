"""Recurrences with parameters of their own, one file each."""

from __future__ import annotations

from ritornello.cells.gru import GRUCell
from ritornello.cells.lru import LRUCell
from ritornello.cells.lstm import LSTMCell
from ritornello.cells.min_gru import MinGRUCell
from ritornello.cells.min_lstm import MinLSTMCell
from ritornello.cells.rg_lru import RGLRUCell

__all__ = [
    "GRUCell",
    "LRUCell",
    "LSTMCell",
    "MinGRUCell",
    "MinLSTMCell",
    "RGLRUCell",
]
