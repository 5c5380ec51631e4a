"""Linear systems that do not depend on time, with a dense transition for every channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ritornello.cell import Cell
from ritornello.sequence import Sequence
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["LTICell", "Move"]

Move = Callable[[Tensor, Tensor], Tensor]
"""The state (B, H, N) and x (B, H) → the next state."""

SHORT = 16
"""Steps up to which they are walked one by one: the powers of Ā cost more."""


class LTICell(Cell):
    """h_t = Ā h_{t−1} + B̄ x_t, y_t = C h_t + D x_t, for every channel of x a system of its own.

    All times at once are a convolution with the kernel C Āʲ B̄ by fast Fourier transforms; the powers of Ā on B̄, from
    which kernel and last state are made, come by doubling. So no state is stored over time for any row of a batch. A
    few steps are walked. The state is (h, y), with the output beside.

    Args:
        system: a module that returns Ā (H, N, N), B̄ (H, N), C (H, N) and D (H,) in a dtype, differentiably. It may
            offer a step without Ā and B̄: ``move(dtype)``, a `Move`, and ``output(dtype)``, C and D.
        channels, size: H and N.

    Source: Gu et al. 2021, "Combining Recurrent, Convolutional, and Continuous-time Models", arXiv:2110.13985.
    """

    fused_anywhere = True

    def __init__(self, system: nn.Module, channels: int, size: int):
        super().__init__()
        self.system: Any = system
        self.channels, self.size = channels, size

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        zero = like.new_zeros(batch, self.channels, self.size, dtype=accumulation_dtype(like.dtype))
        return zero, zero[..., 0].clone()

    def step(self, u: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        move, C, D = self._move(h[0].dtype)
        x = u.to(h[0].dtype)
        state = move(h[0], x)
        return state, (C * state).sum(-1) + D * x

    def read(self, u: Tensor, h: tuple[Tensor, Tensor]) -> Tensor:
        return h[1].to(u.dtype)

    def fused(self, u: Tensor, h: tuple[Tensor, Tensor], cu_seqlens: Tensor | None = None):
        start, before = h
        sequence = Sequence.of(u, cu_seqlens)
        rows = sequence.pad(u.to(start.dtype))
        length, lengths = rows.shape[1], sequence.lengths(u.device)
        if length == 0:
            return (None, u.to(start.dtype)), h
        if length <= SHORT:
            y, last = self._walk(rows, None if cu_seqlens is None else lengths, start)
        else:
            y, last = self._at_once(rows, lengths, start)
        outputs = sequence.unpad(y)
        ends = y[torch.arange(y.shape[0], device=u.device), (lengths - 1).clamp(min=0)]
        return (None, outputs), (last, torch.where((lengths > 0).unsqueeze(-1), ends, before))

    def _move(self, dtype: torch.dtype) -> tuple[Move, Tensor, Tensor]:
        if hasattr(self.system, "move"):
            return self.system.move(dtype), *self.system.output(dtype)
        A, B, C, D = self.system(dtype)
        return lambda h, x: torch.einsum("hij,bhj->bhi", A, h) + B * x.unsqueeze(-1), C, D

    def _walk(self, rows: Tensor, lengths: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs (N, L, H) and the state after each row's last step; all steps are real where `lengths` is
        None."""
        move, C, D = self._move(state.dtype)
        outputs = []
        for t, x in enumerate(rows.unbind(1)):
            moved = move(state, x)
            state = moved if lengths is None else torch.where((t < lengths).view(-1, 1, 1), moved, state)
            outputs.append((C * state).sum(-1) + D * x)
        return torch.stack(outputs, 1), state

    def _at_once(self, rows: Tensor, lengths: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The same by the powers of Ā."""
        length = rows.shape[1]
        A, B, C, D = self.system(start.dtype)
        powers, driven = _powers(A, B, length)
        valid = torch.arange(length, device=rows.device) < lengths.unsqueeze(1)
        rows = torch.where(valid.unsqueeze(-1), rows, 0)
        y = _convolve(rows, torch.einsum("hn,hnt->th", C, driven)) + D * rows
        _, seen = _powers(A.mT, C, length)  # (Āᵀ)ʲ C: what later steps see of the state now
        y = y + torch.einsum("hnt,bhn->bth", seen, torch.einsum("hij,bhj->bhi", A, start))
        last = start
        for bit, power in enumerate(powers):  # Ā to the power of each row's length
            moved = torch.einsum("hij,bhj->bhi", power, last)
            last = torch.where(((lengths >> bit) & 1 == 1).view(-1, 1, 1), moved, last)
        age = lengths.unsqueeze(1) - 1 - torch.arange(length, device=rows.device)
        aged = rows.gather(1, age.clamp(min=0).unsqueeze(-1).expand_as(rows))
        aged = torch.where((age >= 0).unsqueeze(-1), aged, 0)
        last = last + torch.einsum("hnt,bth->bhn", driven, aged)
        return y, last


def _powers(A: Tensor, b: Tensor, length: int) -> tuple[list[Tensor], Tensor]:
    """Ā, Ā², Ā⁴, … as far as lengths up to `length` need them, and Āʲ b for j < length, (H, N, length)."""
    columns, powers = b.unsqueeze(-1), [A]
    while columns.shape[-1] < length:
        columns = torch.cat([columns, powers[-1] @ columns], -1)
        powers.append(powers[-1] @ powers[-1])
    return powers, columns[..., :length]


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Σ_{s ≤ t} kernel_{t − s} ⊙ x_s: (B, T, H) with (T, H)."""
    if x.numel() == 0:  # which not every library of transforms takes
        return x
    size = 2 * x.shape[1]
    return torch.fft.irfft(torch.fft.rfft(x, size, 1) * torch.fft.rfft(kernel, size, 0), size, 1)[:, : x.shape[1]]
