"""One driver for all kernels that are a differentiable function over a window of time.

A kernel gives the recurrence over one window, tensors in and ``(output, *state)`` out. The forward pass runs window
after window and carries the state; the backward pass goes through them in reverse, and recomputes each from the state
at its start: memory is that of one window, and of one state for each window. Packed sequences are sorted by length into
a few padded batches (lengths within a factor of two, so less than half is padding); the padding leaves the state as it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ritornello.kernels.recompute import recomputed
from ritornello.typing import Tensor

__all__ = ["Windowed"]


@dataclass(frozen=True)
class Windowed:
    """A kernel made of a function over one window.

    Args:
        window: ``(*tensors, *attributes) -> (output, *state)``, differentiable, at least one time step; the tensors in
            the order of the op's schema, without `cu_seqlens`.
        roles: a letter for each of these tensors: ``t`` lies over time, ``p`` is a parameter, ``s`` is state.
        identity: for each ``t`` in order, the value that leaves the state as it is.
        steps: ``(*tensors) -> int``, the length of a window.
    """

    window: Callable[..., Sequence[Tensor]]
    roles: str
    identity: tuple[float, ...]
    steps: Callable[..., int]

    def forward(self, *arguments: Any) -> tuple[tuple[Tensor, ...], None]:
        tensors, cu_seqlens, attributes = self._split(arguments[:-1])
        if cu_seqlens is None:
            output, states = self._run(tensors, attributes)
            return (output, *states[-1]), None
        output = None
        last = [s.clone() for s in self._pick(tensors, "s")]
        for rows, index, valid in _buckets(cu_seqlens):
            o, states = self._run(self._gather(tensors, rows, index, valid), attributes)
            if output is None:
                output = o.new_zeros(1, tensors[0].shape[1], *o.shape[2:])
            output[0, index[valid]] = o[valid]
            for whole, part in zip(last, states[-1], strict=True):
                whole[rows] = part
        if output is None:  # all sequences are empty; what the window returns tells the shape
            step = [t[:, :1] if r == "t" and t is not None else t for t, r in zip(tensors, self.roles, strict=True)]
            for place in self._places("s"):
                step[place] = tensors[place].new_zeros(1, *tensors[place].shape[1:])
            o = self.window(*step, *attributes)[0]
            output = o.new_zeros(1, tensors[0].shape[1], *o.shape[2:])
        return (output, *last), None

    def backward(self, grads, trace, needs, *arguments: Any) -> list[Tensor | None]:
        tensors, cu_seqlens, attributes = self._split(arguments)
        packed, needs = needs[len(self.roles) :], needs[: len(self.roles)]
        if cu_seqlens is None:
            return self._gradients(grads, needs, tensors, attributes) + [None] * len(packed)
        found: list[Tensor | None] = [torch.zeros_like(t) if n else None for t, n in zip(tensors, needs, strict=True)]
        states = self._places("s")
        for place, grad in zip(states, grads[1:], strict=True):
            if needs[place] and grad is not None:
                found[place] = grad.clone()  # of empty sequences; the others are written below
        for rows, index, valid in _buckets(cu_seqlens):
            mine = [None if grads[0] is None else _masked(grads[0][0, index], valid, 0.0)]
            mine += [None if g is None else g[rows] for g in grads[1:]]
            parts = self._gradients(mine, needs, self._gather(tensors, rows, index, valid), attributes)
            for whole, part, role in zip(found, parts, self.roles, strict=True):
                if whole is None:
                    continue
                if role == "t":
                    whole[0, index[valid]] = 0 if part is None else part[valid]
                elif role == "s":
                    whole[rows] = 0 if part is None else part
                elif part is not None:
                    whole += part
        return found + [None] * len(packed)

    # ------------------------------------------------------------------------------------------------------- one batch

    def _run(self, tensors, attributes) -> tuple[Tensor, list[list[Tensor]]]:
        """The output, and the state before the first window and after each."""
        outputs, states = [], [self._pick(tensors, "s")]
        with torch.no_grad():
            for window in self._windows(tensors):
                output, *state = self.window(*self._at(tensors, window, states[-1]), *attributes)
                outputs.append(output)
                states.append(state)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), states

    def _gradients(self, grads, needs, tensors, attributes) -> list[Tensor | None]:
        windows = list(self._windows(tensors))
        states = [self._pick(tensors, "s")] if len(windows) == 1 else self._run(tensors, attributes)[1]
        carried = list(grads[1:])
        pieces: list[list[Tensor | None]] = []
        for number, window in reversed(list(enumerate(windows))):
            local = [n or (number > 0 and r == "s") for n, r in zip(needs, self.roles, strict=True)]
            mine = [None if grads[0] is None else grads[0][:, window], *carried]
            cut = self._at(tensors, window, states[number])
            pieces.append(recomputed(lambda *x: self.window(*x, *attributes), cut, local, mine))
            carried = [pieces[-1][place] for place in self._places("s")]
        pieces.reverse()
        return [
            self._joined(role, [p[place] for p in pieces], tensors[place], windows) if needs[place] else None
            for place, role in enumerate(self.roles)
        ]

    @staticmethod
    def _joined(role, parts, tensor, windows) -> Tensor | None:
        if role == "s":
            return parts[0]
        if role == "p":
            parts = [p for p in parts if p is not None]
            return sum(parts[1:], parts[0]) if parts else None
        if len(parts) == 1:
            return parts[0]
        return torch.cat(
            [torch.zeros_like(tensor[:, w]) if p is None else p for p, w in zip(parts, windows, strict=True)], 1
        )

    def _windows(self, tensors) -> Iterator[slice]:
        steps = self.steps(*tensors)
        return (slice(start, start + steps) for start in range(0, tensors[0].shape[1], steps))

    def _at(self, tensors, window: slice, state) -> list[Tensor | None]:
        """The tensors of one window, with the state before it."""
        state = iter(state)
        return [
            next(state) if role == "s" else t[:, window] if role == "t" and t is not None else t
            for t, role in zip(tensors, self.roles, strict=True)
        ]

    def _gather(self, tensors, rows, index, valid) -> list[Tensor | None]:
        """The tensors of the sequences `rows`, padded with what leaves the state as it is."""
        fills, found = iter(self.identity), []
        for t, role in zip(tensors, self.roles, strict=True):
            fill = next(fills) if role == "t" else 0.0
            if t is not None and role != "p":
                t = _masked(t[0, index], valid, fill) if role == "t" else t[rows]
            found.append(t)
        return found

    def _split(self, arguments):
        count = len(self.roles)
        return arguments[:count], arguments[count], arguments[count + 1 :]

    def _places(self, role: str) -> list[int]:
        return [place for place, letter in enumerate(self.roles) if letter == role]

    def _pick(self, tensors, role: str) -> list[Tensor]:
        return [tensors[place] for place in self._places(role)]


def _masked(x: Tensor, valid: Tensor, fill: float) -> Tensor:
    return x.masked_fill(~valid.reshape(valid.shape + (1,) * (x.dim() - valid.dim())), fill)


def _buckets(cu_seqlens: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sequences of similar length: their rows (n,), the times of their steps (n, L), and which are not padding."""
    starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
    kinds = lengths.double().log2().ceil()
    for kind in sorted({k for k in kinds.tolist() if k >= 0}):
        rows = (kinds == kind).nonzero().squeeze(1)
        times = torch.arange(int(lengths[rows].max()), device=cu_seqlens.device)
        valid = times < lengths[rows].unsqueeze(1)
        yield rows, torch.where(valid, starts[rows].unsqueeze(1) + times, 0), valid
