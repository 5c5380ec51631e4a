"""How many times a window may have for its Jacobians to fit the memory there is."""

from __future__ import annotations

import os

import torch

from ritornello.method.newton._layout import Structure
from ritornello.typing import Tensor

__all__ = ["longest_window"]

COPIES, SHARE = 6, 0.25
"""The tree of compositions holds about so many copies of the Jacobians; they may take this share of what is free."""


def longest_window(structure: Structure, h: Tensor) -> int:
    """The most steps whose dense Jacobians fit; no limit for those that are not larger than a few states."""
    if not structure.dense:
        return max(h.shape[1], 1)
    numbers = h.shape[0] * structure.size * h.shape[2]
    return max(int(SHARE * _free(h.device) / (COPIES * numbers * h.element_size())), 1)


def _free(device: torch.device) -> int:
    """Free bytes; 1 GiB where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 30
