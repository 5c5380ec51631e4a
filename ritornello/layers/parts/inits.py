"""Initialisations that papers share."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["xavier_blocks_"]


@torch.no_grad()
def xavier_blocks_(weight: nn.Parameter, rows: list[int], gain: float = 2**-2.5) -> None:
    """Xavier-uniform for each block of `rows` rows, as if it were a projection of its own.

    The gain 2^−2.5 for queries, keys, values and gates is that of RetNet's authors, and of GLA's after them.
    """
    for block in weight.split(rows):
        nn.init.xavier_uniform_(block, gain)
