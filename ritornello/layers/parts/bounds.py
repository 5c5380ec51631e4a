"""Lower bounds of forget gates that are learned from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import Call
from ritornello.layers.parts.place import Place
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["LowerBound"]


class LowerBound(nn.Module):
    """γ_0 = 0, γ_i = γ_{i−1} + (1 − γ_{i−1}) σ(logit) for the i-th of n layers, channel by channel: later layers never
    forget faster than earlier ones may. γ_i = i / n at the start.

    Where each layer adds its share of a softmax over all n, as the authors' do, these logits are the softmax's by
    fewer parameters: σ(logit_i) is the i-th share in what the shares before have left over.

    Args:
        kind: of the layer, for messages and for what goes from layer to layer.
        size: channels.
        fixed: γ, where it is not learned.
        place: (i, n).

    Source: Qin et al. 2023, arXiv:2311.04823, section 3.2.
    """

    def __init__(self, kind: str, size: int, fixed: float | None, place: tuple[int, int]):
        super().__init__()
        if fixed is not None and not 0 <= fixed < 1:
            raise InputError(f"`lower_bound` of {kind} is {fixed}; wanted at least 0 and below 1.")
        self.kind, self.fixed, self.place = kind, fixed, Place(kind, place)
        self.logit = None
        if fixed is None and self.place.index:
            left = self.place.count - self.place.index
            self.logit = nn.Parameter(torch.full((size,), -math.log(left)))

    def forward(self, call: Call) -> Tensor | float:
        """γ: a number, or (size,) in float32 or wider where it is learned past the first layer."""
        if self.fixed is not None:
            return self.fixed
        low: Tensor | float = 0.0
        if self.logit is not None:
            if self._key(-1) not in call.carry:
                raise InputError(
                    f"This {self.kind} layer is number {self.place.index} of {self.place.count} and goes on from the "
                    "bound of the one before, which did not run. Run it in a model, or build it with place=(0, n)."
                )
            before = call.carry[self._key(-1)]
            low = before + (1 - before) * torch.sigmoid(self.logit.to(accumulation_dtype(self.logit.dtype)))
        call.carry[self._key(0)] = low
        return low

    def _key(self, offset: int) -> str:
        return f"bound of {self.kind} {self.place.index + offset}"
