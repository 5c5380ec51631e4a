"""The Python side of src/cell_diagonal.h: one struct for the element-wise cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, dense, starts, zero_tail
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["DiagonalCell"]

_FIELDS = "3q p p 3q p 2p p 2p p p 2p p p 2p"


class DiagonalCell:
    """One element-wise cell's entries into the library.

    Args:
        name: of its C source.
        states: how many there are; the trace keeps all of them.
    """

    def __init__(self, name: str, states: int):
        self.states = states
        self._forward, self._backward = Entry(name, _FIELDS), Entry(f"{name}_backward", _FIELDS)

    def trace_size(self, u: Tensor) -> int:
        return self.states * u.shape[0] * u.shape[1] * u.shape[-1] * accumulation_dtype(u.dtype).itemsize

    def forward(self, u, weights: Tensor, states: Sequence[Tensor], cu_seqlens, save: bool):
        """(h over time, *the last states), and the trace where `save`. `weights`: all of them, (number, D)."""
        u, states = dense(u), [s.contiguous() for s in states]
        y = u.new_empty(u.shape[0], u.shape[1], u.shape[-1])
        last = [torch.empty_like(s) for s in states]
        trace = torch.empty(self.trace_size(u), dtype=torch.uint8) if save else None
        zero_tail(cu_seqlens, y)
        self._call(self._forward, u, weights, states, cu_seqlens, y=y, last=last, trace=trace)
        return (y, *last), trace

    def backward(self, grads, trace, u, weights, states, cu_seqlens):
        """Gradients of u, of the weights, and of the states."""
        dy, *dlast = (None if g is None else g.contiguous() for g in grads)
        u, states = dense(u), [s.contiguous() for s in states]
        du = blank(u)
        dweights = states[0].new_empty(states[0].shape[0], *weights.shape)
        dstate = [torch.empty_like(s) for s in states]
        zero_tail(cu_seqlens, du)
        self._call(
            self._backward, u, weights, states, cu_seqlens,
            trace=trace, dy=dy, dlast=dlast, du=du, dweights=dweights, dstate=dstate,
        )  # fmt: skip
        return du, dweights.sum(0), dstate

    def _call(
        self, entry, u, weights, state, cu_seqlens, *,
        y=None, last=(), trace=None, dy=None, dlast=(), du=None, dweights=None, dstate=(),
    ):  # fmt: skip
        bounds, weights = starts(cu_seqlens), weights.contiguous()
        entry(
            u.dtype, state[0].shape[0], u.shape[1], u.shape[-1], address(bounds),
            u.data_ptr(), u.stride(0), u.stride(1), u.stride(2), weights.data_ptr(),
            *_two(state), address(y), *_two(last), address(trace), address(dy), *_two(dlast),
            address(du), address(dweights), *_two(dstate),
        )  # fmt: skip


def _two(tensors: Sequence[Tensor | None]) -> list[int]:
    return [address(t) for t in tensors] + [0] * (2 - len(tensors))
