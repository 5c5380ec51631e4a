"""Transitions of vector states: diagonal (as it is, gated, or in Mamba's factors), blocks of diagonals, dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from ritornello import ops
from ritornello.sequence import Sequence
from ritornello.transition.base import Transition, prefixes, whole
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["Block", "Dense", "Diagonal", "Gated", "Segment", "Selective"]


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(Transition):
    """h ← a ⊙ h + b. `a` and `b` are (B, T, \\*S), real of any sign or complex."""

    a: Tensor
    b: Tensor
    over_time: ClassVar = {"a": 1.0, "b": 0.0}
    op: ClassVar = "diagonal_scan"

    def apply(self, h: Tensor) -> Tensor:
        return self.a * h + self.b

    def after(self, earlier: Any) -> Diagonal:
        earlier = earlier.as_element()
        return Diagonal(self.a * earlier.a, self.a * earlier.b + self.b)

    def summary(self) -> Diagonal:
        wide = self.wide()
        return Diagonal(wide.a.prod(1), self.scan(self.start())[1])

    def start(self) -> Tensor:
        return self.b.new_zeros((self.batch, *self.b.shape[2:]), dtype=accumulation_dtype(self.b.dtype))

    def scan(self, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.diagonal_scan(self.a, self.b, h0, cu_seqlens=cu_seqlens)

    def scan_read(self, query: None, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.scan(h0, cu_seqlens)


@dataclass(frozen=True, eq=False, repr=False)
class Gated(Transition):
    """h ← (1 − z) ⊙ h + z ⊙ g(v), z = σ(gate): a Diagonal kept as its gate and value, both (B, T, \\*S).

    activation: g: ``"tanh"``, ``"silu"``, ``"positive"`` (v + ½ for v ≥ 0, σ(v) below), or None for v itself.
    """

    gate: Tensor
    value: Tensor
    activation: str | None = None
    over_time: ClassVar = {"gate": float("-inf"), "value": 0.0}
    op: ClassVar = "gated_scan"

    def as_element(self) -> Diagonal:
        value = self.value
        if self.activation == "positive":
            value = torch.where(value >= 0, F.relu(value) + 0.5, torch.sigmoid(value))
        elif self.activation is not None:
            value = {"tanh": torch.tanh, "silu": F.silu}[self.activation](value)
        return Diagonal(torch.sigmoid(-self.gate), torch.sigmoid(self.gate) * value)

    def apply(self, h: Tensor) -> Tensor:
        return self.as_element().apply(h)

    def after(self, earlier: Gated | Diagonal) -> Diagonal:
        return self.as_element().after(earlier)

    def summary(self) -> Diagonal:
        return self.wide().as_element().summary()

    def start(self) -> Tensor:
        return self.value.new_zeros((self.batch, *self.value.shape[2:]), dtype=accumulation_dtype(self.value.dtype))

    def scan(self, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.gated_scan(self.gate, self.value, h0, self.activation, cu_seqlens=cu_seqlens)

    def scan_read(self, query: None, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.scan(h0, cu_seqlens)


@dataclass(frozen=True, eq=False, repr=False)
class Selective(Transition):
    """h ← e^{ΔA} ⊙ h + Δ x Bᵀ, read as h C + D x: a Diagonal kept in its factors, h (D, N) never stored over time.

    x, delta (B, T, D); B (B, T, N); A (D, N) < 0; D (D,) or None; signed: 2 e^{ΔA} − 1 for e^{ΔA}. The query is
    (C, x): C (B, T, N), and x once more for the skip.
    """

    x: Tensor
    delta: Tensor
    B: Tensor
    A: Tensor
    D: Tensor | None = None
    signed: bool = False
    over_time: ClassVar = {"x": 0.0, "delta": 0.0, "B": 0.0}
    op: ClassVar = "selective_scan"

    def _decay(self) -> Tensor:
        a = (self.delta.unsqueeze(-1) * self.A).exp()
        return 2 * a - 1 if self.signed else a

    def apply(self, h: Tensor) -> Tensor:
        return self._decay() * h + (self.delta * self.x).unsqueeze(-1) * self.B.unsqueeze(-2)

    def read(self, query: tuple[Tensor, Tensor], before: Tensor, after: Tensor) -> Tensor:
        C, x = query
        y = (after * C.unsqueeze(-2)).sum(-1)
        return y if self.D is None else y + self.D * x

    def after(self, earlier: Transition) -> Diagonal:
        raise TypeError(
            "Selective is composed as its summary(): a Diagonal of (D, N). Take summaries, then compose them."
        )

    def summary(self) -> Diagonal:
        a = self.wide()
        if self.signed:
            total = torch.stack([t._decay() for t in a.unbind()]).prod(0)
        else:
            total = (a.delta.sum(1).unsqueeze(-1) * a.A).exp()
        blind = torch.zeros_like(self.B), self.x
        return Diagonal(total, self.scan_read(blind, self.start())[1])

    def start(self) -> Tensor:
        return self.x.new_zeros((self.batch, *self.A.shape), dtype=accumulation_dtype(self.x.dtype))

    def scan_read(self, query: tuple[Tensor, Tensor], h0: Tensor, cu_seqlens: Tensor | None = None):
        C, _ = query
        return ops.selective_scan(self.x, self.delta, self.A, self.B, C, self.D, self.signed, h0, cu_seqlens=cu_seqlens)


def _eye_of_blocks(a: Tensor) -> Tensor:
    return torch.eye(a.shape[-2], dtype=a.dtype, device=a.device).unsqueeze(-1)


@dataclass(frozen=True, eq=False, repr=False)
class Block(Transition):
    """h_i ← Σ_j a_ij ⊙ h_j + b_i: n × n blocks of diagonals. a (B, T, n, n, D), b and h (…, n, D).

    The Jacobian of a cell with several state tensors that act channel by channel (an LSTM's h and c) has this form.
    """

    a: Tensor
    b: Tensor
    over_time: ClassVar = {"a": _eye_of_blocks, "b": 0.0}
    op: ClassVar = "block_scan"

    def apply(self, h: Tensor) -> Tensor:
        return torch.einsum("...ijd,...jd->...id", self.a, h) + self.b

    def after(self, earlier: Block) -> Block:
        return Block(torch.einsum("...ijd,...jkd->...ikd", self.a, earlier.a), self.apply(earlier.b))

    def summary(self) -> Block:
        return whole(self.wide())

    def start(self) -> Tensor:
        return self.b.new_zeros((self.batch, *self.b.shape[2:]), dtype=accumulation_dtype(self.b.dtype))

    def scan(self, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.block_scan(self.a, self.b, h0, cu_seqlens=cu_seqlens)

    def scan_read(self, query: None, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.scan(h0, cu_seqlens)


def _eye(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Transition):
    """h ← M h + b. M (B, T, n, n); b and h (…, n), or (…, n, V) for a matrix of V columns that share M."""

    matrix: Tensor
    added: Tensor
    over_time: ClassVar = {"matrix": _eye, "added": 0.0}

    def apply(self, h: Tensor) -> Tensor:
        if self.added.dim() < self.matrix.dim():
            return (self.matrix @ h.unsqueeze(-1)).squeeze(-1) + self.added
        return self.matrix @ h + self.added

    def after(self, earlier: Any) -> Dense:
        earlier = earlier.as_element()
        return Dense(self.matrix @ earlier.matrix, self.apply(earlier.added))

    def summary(self) -> Dense:
        return whole(self.wide())

    def start(self) -> Tensor:
        return self.added.new_zeros((self.batch, *self.added.shape[2:]), dtype=accumulation_dtype(self.added.dtype))

    def scan(self, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _scan_by_prefixes(self, h0, cu_seqlens)

    def scan_read(self, query: None, h0: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.scan(h0, cu_seqlens)


Segment = Dense
"""What many steps of a Decay or Delta come to: the transition matrix (…, K, K) and the added state (…, K, V)."""


def _scan_by_prefixes(t: Dense, h0: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    sequence = Sequence.of(t.lead, cu_seqlens)
    rows = t.padded(sequence) if cu_seqlens is not None else t
    if rows.length == 0:
        return t.lead.new_zeros((*t.lead.shape[:2], *h0.shape[1:])), h0
    states = prefixes(rows.wide()).apply(h0.unsqueeze(1))
    return sequence.unpad(states).to(t.lead.dtype), states[:, -1]
