"""Which of how many layers this is, told to those whose first values or bounds change with the depth."""

from __future__ import annotations

import torch

from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["Place"]


class Place:
    """Which layer this is, of how many: the authors let the first values change with the depth.

    Args:
        kind: of the layer, for messages.
        place: (i, n), the i-th of n layers of its kind, 0 ≤ i < n.
    """

    def __init__(self, kind: str, place: tuple[int, int]):
        if not isinstance(place, tuple | list) or len(place) != 2 or not 0 <= place[0] < place[1]:
            raise InputError(f"`place` of {kind} is {place}; wanted (i, n) with 0 ≤ i < n: the i-th of n layers.")
        self.index, self.count = place

    @property
    def rising(self) -> float:
        """From 0 at the first layer to 1 at the last."""
        return self.index / max(self.count - 1, 1)

    @property
    def falling(self) -> float:
        """From 1 at the first layer to 1 / n at the last."""
        return 1 - self.index / self.count

    def mix(self, width: int, power: float) -> Tensor:
        """The share of the past in each channel, 1 − (c / width)^power: later channels look less far back."""
        return 1 - (torch.arange(width) / width) ** power
