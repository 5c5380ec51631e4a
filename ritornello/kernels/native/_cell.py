"""The Python side of src/cell.h: one struct for every cell with a recurrent matrix, and the gradient of that matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, dense, starts, zero_tail
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["Cell"]

_FIELDS = "5q 2p p 3q 2p 4p p 4p p p 4p 3p 4p"


class Cell:
    """One cell's entries into the library.

    Args:
        name: of its C source.
        slots: how many numbers the trace keeps for each element of h.
        states: how many of the states are differentiated.
    """

    def __init__(self, name: str, slots: int, states: int = 1):
        self.slots, self.states = slots, states
        self._forward, self._backward = Entry(name, _FIELDS), Entry(f"{name}_backward", _FIELDS)

    def trace_size(self, u: Tensor) -> int:
        return self.slots * u.shape[0] * u.shape[1] * u.shape[-1] * accumulation_dtype(u.dtype).itemsize

    def forward(self, u, weight, states: Sequence[Tensor], cu_seqlens, save: bool, option: int = 0, bias=None):
        """(h over time, *the last states), and the trace where `save`."""
        u, states = dense(u), [s.contiguous() for s in states]
        y = u.new_empty(u.shape[0], u.shape[1], u.shape[-1])
        last = [torch.empty_like(s) for s in states]
        trace = torch.empty(self.trace_size(u), dtype=torch.uint8) if save else None
        zero_tail(cu_seqlens, y)
        self._call(self._forward, u, weight, states, cu_seqlens, option, bias, y=y, last=last, trace=trace)
        return (y, *last), trace

    def backward(
        self, grads, trace, u, weight, states, cu_seqlens, option: int = 0, bias=None, product=False, operand=False
    ):
        """Gradients of u, of the weight, of the states; and of R h, the last gate's, where that is not u's: `product`.

        Where that gate's matrix multiplies something else than h, the kernel tells what: `operand`.
        """
        dy, *dlast = (None if g is None else g.contiguous() for g in grads)
        u, states = dense(u), [s.contiguous() for s in states]
        du = blank(u)
        before = u.new_empty(u.shape[0], u.shape[1], u.shape[-1])
        dproduct: Any = torch.empty_like(before) if product or operand else None
        dstates = [torch.empty_like(s) for s in states[: self.states]]
        zero_tail(cu_seqlens, du, before, dproduct)
        self._call(
            self._backward, u, weight, states, cu_seqlens, option, bias,
            trace=trace, dy=dy, dlast=dlast[: self.states], du=du, before=before, dproduct=dproduct, dstate=dstates,
        )  # fmt: skip
        if operand:
            parts = ((du[:, :, :-1], before), (du[:, :, -1:], dproduct))
            dweight = torch.cat([_weight_gradient(d, None, x, weight.shape) for d, x in parts])
        else:
            dweight = _weight_gradient(du, dproduct, before, weight.shape)
        return du, dweight.view(weight.shape), dstates, dproduct

    def _call(
        self, entry, u, weight, state, cu_seqlens, option, bias, *,
        y=None, last=(), trace=None, dy=None, dlast=(), du=None, before=None, dproduct=None, dstate=(),
    ):  # fmt: skip
        bounds, weight = starts(cu_seqlens), weight.contiguous()
        order = None if bounds is None else bounds.diff().argsort(descending=True)
        entry(
            u.dtype, state[0].shape[0], u.shape[1], weight.shape[-3], weight.shape[-1], option,
            address(bounds), address(order), u.data_ptr(), u.stride(0), u.stride(1), u.stride(2) if u.dim() == 4 else 0,
            weight.data_ptr(), address(bias), *_four(state), address(y), *_four(last), address(trace),
            address(dy), *_four(dlast), address(du), address(before), address(dproduct), *_four(dstate),
        )  # fmt: skip


def _four(tensors: Sequence[Tensor | None]) -> list[int]:
    return [address(t) for t in tensors] + [0] * (4 - len(tensors))


def _weight_gradient(du: Tensor, dproduct: Tensor | None, before: Tensor, shape: torch.Size) -> Tensor:
    """Σ over rows and times of (the gradient of R h) hᵀ, head by head, in PyTorch's matrix product."""
    heads, width = shape[-3], shape[-1]
    if dproduct is not None:
        return torch.cat([_weight_gradient(x, None, before, shape) for x in (du[:, :, :-1], dproduct)])
    times = before.shape[0] * before.shape[1]
    if heads == 1:  # views only: a transposed copy would cost as much as the product
        gates = du.shape[-2] * width if du.dim() == 4 else width
        du = du.as_strided((times, gates), (du.stride(1), 1), du.storage_offset())
        return (du.t() @ before.view(times, width)).view(-1, 1, width, width)
    du = du.reshape(times, -1, heads, width).permute(1, 2, 3, 0)
    return du @ before.view(times, heads, width).transpose(0, 1)
