"""The matrix memory of xLSTM: exponential gates, held relative to the largest exponent so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import logsigmoid

from ritornello import ops
from ritornello.transition.base import Transition, whole
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["MLSTM", "MLSTMSegment"]

State = tuple[Tensor, Tensor, Tensor]
_NOTHING = float("-inf")


@dataclass(frozen=True, eq=False, repr=False)
class MLSTMSegment(Transition):
    """(C, n, m) ← (e^{g + m − M} C + e^{i − M} A, e^{g + m − M} n + e^{i − M} a, M), M = max(g + m, i).

    What one step or many come to: added (A (…, K, V), a (…, K)) with exponent i (…,) and log decay g (…,).
    """

    memory: Tensor
    normaliser: Tensor
    i: Tensor
    log_decay: Tensor
    over_time: ClassVar = {"memory": 0.0, "normaliser": 0.0, "i": _NOTHING, "log_decay": 0.0}

    def apply(self, h: State) -> State:
        C, n, m = h
        old = self.log_decay + m
        with torch.no_grad():
            top = torch.maximum(old, self.i)
            anchor = torch.where(top.isinf(), 0.0, top)  # nothing was added yet: −∞ − (−∞) must not be formed
        keep, add = (old - anchor).exp().unsqueeze(-1), (self.i - anchor).exp().unsqueeze(-1)
        C = keep.unsqueeze(-1) * C + add.unsqueeze(-1) * self.memory
        return C, keep * n + add * self.normaliser, top

    def after(self, earlier: Any) -> MLSTMSegment:
        earlier = earlier.as_element()
        C, n, top = self.apply((earlier.memory, earlier.normaliser, earlier.i))
        return MLSTMSegment(C, n, top, self.log_decay + earlier.log_decay)

    def summary(self) -> MLSTMSegment:
        return whole(self.wide())

    def start(self) -> State:
        return tuple(torch.zeros_like(t[:, 0]) for t in (self.memory, self.normaliser, self.i))  # type: ignore[return-value]

    def scan_read(self, query: Any, h0: State, cu_seqlens: Tensor | None = None) -> tuple[Tensor, State]:
        raise TypeError("A composition of mLSTM steps has no outputs to read. Read the steps: MLSTM.scan_read.")


@dataclass(frozen=True, eq=False, repr=False)
class MLSTM(Transition):
    """C ← σ(f) C + eⁱ k vᵀ, n ← σ(f) n + eⁱ k, read as Cᵀq / (max(|nᵀq|, 1) + eps·eᵐ), q = scale · query.

    k (B, T, H, K), v (B, T, H, V), i and f (B, T, H) before their activation. The state is (C e^{−m}, n e^{−m}, m) with
    m ← max(log σ(f) + m, i), which starts at 0. Compositions are MLSTMSegments, whose memories are matrices over time.
    """

    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor
    scale: float | None = None
    eps: float = 1e-6
    # σ(∞) = 1 keeps everything, and e^−∞ = 0 adds nothing.
    over_time: ClassVar = {"k": 0.0, "v": 0.0, "i": _NOTHING, "f": float("inf")}
    op: ClassVar = "mlstm"

    def as_element(self) -> MLSTMSegment:
        """Each step as what it adds, written out."""
        return MLSTMSegment(self.k.unsqueeze(-1) * self.v.unsqueeze(-2), self.k, self.i, logsigmoid(self.f))

    def apply(self, h: State) -> State:
        return self.as_element().apply(h)

    def after(self, earlier: MLSTM | MLSTMSegment) -> MLSTMSegment:
        return self.as_element().after(earlier)

    def summary(self) -> MLSTMSegment:
        return self.wide().as_element().summary()

    def start(self) -> State:
        (*_, keys), values = self.k.shape, self.v.shape[-1]
        lead = self.batch, self.k.shape[-2]
        zeros = self.v.new_zeros(*lead, keys, values, dtype=accumulation_dtype(self.v.dtype))
        return zeros, zeros.new_zeros(*lead, keys), zeros.new_zeros(lead)

    def read(self, query: Tensor, before: State, after: State) -> Tensor:
        C, n, m = after
        q = query * (self.k.shape[-1] ** -0.5 if self.scale is None else self.scale)
        below = torch.maximum((n * q).sum(-1).abs(), (-m.detach()).exp()) + self.eps
        return torch.einsum("...kv,...k->...v", C, q) / below.unsqueeze(-1)

    def scan_read(self, query: Tensor, h0: State, cu_seqlens: Tensor | None = None) -> tuple[Tensor, State]:
        return ops.mlstm(query, self.k, self.v, self.i, self.f, h0, self.scale, self.eps, cu_seqlens=cu_seqlens)
