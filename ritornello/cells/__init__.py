"""Recurrences with parameters of their own, one file each."""

from __future__ import annotations

from ritornello.cells.lstm import LSTMCell
from ritornello.cells.min_gru import MinGRUCell

__all__ = ["LSTMCell", "MinGRUCell"]
