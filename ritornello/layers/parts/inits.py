"""Initialisations that papers share."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["xavier_blocks_"]


@torch.no_grad()
def xavier_blocks_(linear: nn.Linear, *rows: int, gain: float = 2**-2.5) -> None:
    """Xavier-uniform for each block of `rows` rows, as if it were a projection of its own (all rows where none are
    named); a bias becomes zero.

    The gain 2^−2.5 for queries, keys, values and gates is that of RetNet's authors, and of GLA's after them.
    """
    for block in linear.weight.split(list(rows) or [linear.out_features]):
        nn.init.xavier_uniform_(block, gain)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
