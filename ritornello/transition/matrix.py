"""Transitions of matrix states S (K, V): decay, delta rule, and diagonal plus low rank."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch

from ritornello import ops
from ritornello.transition.base import Transition
from ritornello.transition.vector import Segment
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["Decay", "Delta", "LowRank", "MatrixTransition"]


class MatrixTransition(Transition):
    """What the transitions of a matrix state share: k (B, T, H, K) writes v (B, T, Hv, V), H dividing Hv.

    Compositions are Segments. Both they and summaries come from linearity: the map of the state is found by letting
    the recurrence act on the identity with nothing added.
    """

    k: Tensor
    v: Tensor
    scale: float | None

    @abstractmethod
    def apply(self, h: Tensor) -> Tensor: ...

    def heads(self, x: Tensor) -> Tensor:
        """(…, H, K) → (…, Hv, K): value head j reads head j // (Hv / H)."""
        repeats = self.v.shape[-2] // x.shape[-2]
        return x if repeats == 1 else x.repeat_interleave(repeats, -2)

    def factor(self, log_decay: Tensor | None, decay: Tensor | None) -> Tensor | float:
        """The decay as a factor of the rows of S, (…, Hv, K or 1, 1)."""
        d = decay if log_decay is None else log_decay.exp()
        if d is None:
            return 1.0
        return d.unsqueeze(-1) if d.dim() == self.v.dim() else d.unsqueeze(-1).unsqueeze(-1)

    def read(self, query: Tensor, before: Tensor, after: Tensor) -> Tensor:
        scale = self.k.shape[-1] ** -0.5 if self.scale is None else self.scale
        return scale * torch.einsum("...kv,...k->...v", after, self.heads(query))

    def start(self) -> Tensor:
        shape = self.batch, self.v.shape[-2], self.k.shape[-1], self.v.shape[-1]
        return self.v.new_zeros(shape, dtype=accumulation_dtype(self.v.dtype))

    def with_values(self, v: Tensor) -> Self:
        return replace(self, v=v)  # type: ignore[type-var]

    def _eye(self, *lead: int) -> Tensor:
        keys = self.k.shape[-1]
        eye = torch.eye(keys, dtype=accumulation_dtype(self.v.dtype), device=self.v.device)
        return eye.expand(*lead, self.v.shape[-2], keys, keys)

    def as_element(self) -> Segment:
        """Each step as its matrix (…, K, K) and what it adds (…, K, V)."""
        wide = self.wide()
        lead = self.v.shape[:-2]
        silent = wide.with_values(wide.v.new_zeros(*lead, self.v.shape[-2], self.k.shape[-1]))
        nothing = wide.v.new_zeros(*lead, self.v.shape[-2], self.k.shape[-1], self.v.shape[-1])
        return Segment(silent.apply(self._eye(*lead)), wide.apply(nothing))

    def after(self, earlier: Any) -> Segment:
        return self.as_element().after(earlier)

    def summary(self) -> Segment:
        # One call of the op: beside the values stand K columns of zeros, whose states start from the identity.
        values, keys = self.v.shape[-1], self.k.shape[-1]
        padded = self.with_values(torch.cat([self.v, self.v.new_zeros(*self.v.shape[:-1], keys)], -1))
        start = torch.cat([self.start(), self._eye(self.batch)], -1)
        last = padded.scan_read(torch.zeros_like(self.k), start)[1]
        return Segment(last[..., values:], last[..., :values])


@dataclass(frozen=True, eq=False, repr=False)
class Decay(MatrixTransition):
    """S ← diag(d) S + k vᵀ, read as scale · Sᵀ q; with a bonus u, scale · (S before + diag(u) k vᵀ)ᵀ q.

    The decay is given as `log_decay` ≤ 0 or as `decay` in [−1, 1], (B, T, Hv) or (B, T, Hv, K); neither: d = 1.
    """

    k: Tensor
    v: Tensor
    log_decay: Tensor | None = None
    decay: Tensor | None = None
    bonus: Tensor | None = None
    scale: float | None = None
    over_time: ClassVar = {"k": 0.0, "v": 0.0, "log_decay": 0.0, "decay": 1.0}
    op: ClassVar = "linear_attention"

    def _outer(self) -> Tensor:
        return self.heads(self.k).unsqueeze(-1) * self.v.unsqueeze(-2)

    def apply(self, h: Tensor) -> Tensor:
        return self.factor(self.log_decay, self.decay) * h + self._outer()

    def read(self, query: Tensor, before: Tensor, after: Tensor) -> Tensor:
        if self.bonus is not None:
            after = before + self.bonus.unsqueeze(-1) * self._outer()
        return super().read(query, before, after)

    def scan_read(self, query: Tensor, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.linear_attention(
            query, self.k, self.v, self.log_decay, self.decay, self.bonus, h0, self.scale, cu_seqlens=cu_seqlens
        )


@dataclass(frozen=True, eq=False, repr=False)
class Delta(MatrixTransition):
    """S' = diag(d) S, S ← S' + β k (v − S'ᵀk)ᵀ, read as scale · Sᵀ q. beta (B, T, Hv); the decay as in `Decay`."""

    k: Tensor
    v: Tensor
    beta: Tensor
    log_decay: Tensor | None = None
    decay: Tensor | None = None
    scale: float | None = None
    over_time: ClassVar = {"k": 0.0, "v": 0.0, "beta": 0.0, "log_decay": 0.0, "decay": 1.0}
    op: ClassVar = "delta_rule"

    def apply(self, h: Tensor) -> Tensor:
        h = self.factor(self.log_decay, self.decay) * h
        k = self.heads(self.k)
        error = self.v - torch.einsum("...kv,...k->...v", h, k)
        return h + (self.beta.unsqueeze(-1) * k).unsqueeze(-1) * error.unsqueeze(-2)

    def scan_read(self, query: Tensor, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.delta_rule(
            query, self.k, self.v, self.beta, self.log_decay, self.decay, h0, self.scale, cu_seqlens=cu_seqlens
        )


@dataclass(frozen=True, eq=False, repr=False)
class LowRank(MatrixTransition):
    """S ← (diag(d) + b aᵀ) S + k vᵀ, read as scale · Sᵀ q. a and b (B, T, H, K); log_decay as in `Decay`."""

    k: Tensor
    v: Tensor
    a: Tensor
    b: Tensor
    log_decay: Tensor
    scale: float | None = None
    over_time: ClassVar = {"k": 0.0, "v": 0.0, "a": 0.0, "b": 0.0, "log_decay": 0.0}
    op: ClassVar = "dplr"

    def apply(self, h: Tensor) -> Tensor:
        read = torch.einsum("...kv,...k->...v", h, self.heads(self.a))
        written = self.heads(self.b).unsqueeze(-1) * read.unsqueeze(-2)
        return self.factor(self.log_decay, None) * h + written + self.heads(self.k).unsqueeze(-1) * self.v.unsqueeze(-2)

    def scan_read(self, query: Tensor, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.dplr(query, self.k, self.v, self.a, self.b, self.log_decay, h0, self.scale, cu_seqlens=cu_seqlens)
