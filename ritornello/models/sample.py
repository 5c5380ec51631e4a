"""From logits to ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["Sampler"]

COLDEST = 1e-30
"""The lowest temperature that a float32 can be divided by; the likeliest id has all the probability long before."""


@dataclass(frozen=True)
class Sampler:
    """id ~ softmax(logits / temperature), among the `top_k` likeliest, of those the fewest that hold `top_p`.

    Temperature 0 takes the likeliest id. Top-p: Holtzman et al. 2020, arXiv:1904.09751.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    generator: torch.Generator | None = None

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"`temperature` is {self.temperature}; wanted 0 (the likeliest id) or a positive number.")
        if self.top_k is not None and (isinstance(self.top_k, float) or self.top_k < 1):
            raise InputError(f"`top_k` is {self.top_k}; wanted an integer, at least 1, or None for all ids.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"`top_p` is {self.top_p}; wanted a probability above 0, up to 1, or None for all ids.")

    def __call__(self, logits: Tensor) -> Tensor:
        """(B, vocab) → (B,) int64."""
        if self.temperature == 0:
            return logits.argmax(-1)
        order = None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, order = logits.topk(self.top_k, -1)
        elif self.top_p is not None and self.top_p < 1:
            logits, order = logits.sort(-1, descending=True)
        above = logits.float() - logits.float().amax(-1, keepdim=True)  # so that no temperature, however low, overflows
        shares = torch.softmax(above / max(self.temperature, COLDEST), -1)
        if self.top_p is not None and order is not None:
            before = shares.cumsum(-1) - shares  # what the likelier ids hold; the likeliest is always kept
            shares = shares.masked_fill(before >= self.top_p, 0)
        chosen = torch.multinomial(shares, 1, generator=self.generator)
        return (chosen if order is None else order.gather(-1, chosen)).squeeze(-1)
