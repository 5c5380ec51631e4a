"""The softmax monoid: associative, though not affine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ritornello import ops
from ritornello.errors import InputError
from ritornello.transition.base import Transition, whole
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["Softmax"]

_NOTHING = float("-inf")


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Transition):
    """(m, u, w) ← (M, e^{g + m − M} u + e^{logit − M} v, e^{g + m − M} w + e^{logit − M} weight), M = max(g + m,
    logit).

    Read as u / w: the softmax average of all values so far. logits (B, T, \\*S), values (B, T, \\*S[, V]), g =
    log_decay ≤ 0; `weight` (1 where None) is what a composition of many values weighs. With a `bonus` (\\*S) the read
    sees the state before the step, undecayed, and the present with weight e^{logit + bonus} (RWKV-4).
    """

    logits: Tensor
    values: Tensor
    log_decay: Tensor | None = None
    weight: Tensor | None = None
    bonus: Tensor | None = None
    over_time: ClassVar = {"logits": _NOTHING, "values": 0.0, "log_decay": 0.0, "weight": 0.0}
    op: ClassVar = "softmax_scan"

    def _spread(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1) if self.values.dim() > self.logits.dim() else x

    def apply(self, h: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        m, u, w = h
        if self.log_decay is not None:
            m = m + self.log_decay
        with torch.no_grad():
            top = torch.maximum(m, self.logits)
            anchor = torch.where(top.isinf(), 0.0, top)  # nothing has a weight yet: −∞ − (−∞) must not be formed
        old, new = (m - anchor).exp(), (self.logits - anchor).exp()
        weight = new if self.weight is None else new * self.weight
        return top, self._spread(old) * u + self._spread(new) * self.values, old * w + weight

    def after(self, earlier: Softmax) -> Softmax:
        before = earlier.as_element()
        top, u, w = self.apply((before.logits, before.values, before.weight))  # type: ignore[arg-type]
        zero = torch.zeros_like(self.logits)
        mine, theirs = (zero if g is None else g for g in (self.log_decay, before.log_decay))
        return Softmax(top, u, mine + theirs, w)

    def as_element(self) -> Softmax:
        """The same with decay and weight written out: the form in which compositions come."""
        zero = torch.zeros_like(self.logits)
        return Softmax(
            self.logits,
            self.values,
            zero if self.log_decay is None else self.log_decay,
            zero + 1 if self.weight is None else self.weight,
        )

    def summary(self) -> Softmax:
        return whole(self.wide().as_element())

    def start(self) -> tuple[Tensor, Tensor, Tensor]:
        wide = accumulation_dtype(self.values.dtype)
        m = self.logits.new_full((self.batch, *self.logits.shape[2:]), _NOTHING, dtype=wide)
        u = self.values.new_zeros((self.batch, *self.values.shape[2:]), dtype=wide)
        return m, u, torch.zeros_like(m)

    def read(self, query: None, before, after: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        if self.bonus is not None:
            after = replace(self, logits=self.logits + self.bonus, log_decay=None).apply(before)
        _, u, w = after
        return u / self._spread(torch.where(w > 0, w, 1.0))

    def scan_read(self, query: None, h0, cu_seqlens: Tensor | None = None):
        if self.weight is not None:
            raise InputError("A composition of Softmax steps was given to scan_read; wanted single logits and values.")
        return ops.softmax_scan(self.logits, self.values, self.log_decay, h0, bonus=self.bonus, cu_seqlens=cu_seqlens)
