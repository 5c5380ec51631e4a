"""What the wrappers of the matrix-state kernels share: the C struct, the layout of the trace, and both passes.

The trace holds S before every `interval` steps, and one row of V numbers a step that the forward pass had at hand
(`src/matrix.h`): the backward pass recomputes the states between two checkpoints in the first cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, contiguous, dense, slots, starts, untouched
from ritornello.typing import Tensor

__all__ = ["BONUS", "DELTA", "DPLR", "FORWARD", "LINEAR", "Arguments", "backward", "forward", "trace_size", "view"]

LINEAR, BONUS, DELTA, DPLR = range(4)

COMMON = "12q d 39q"
FORWARD = COMMON + "6q"
_forward = Entry("matrix_forward", FORWARD)
_backward = Entry("matrix_backward", COMMON + "22q")

_NO_VIEW = (0, 0, 0, 0)
_GRADIENTS = ("q", "k", "a", "b", "v", "beta", "gain", "decay", "bonus", "state", "n")  # as in C


@dataclass
class Arguments:
    """One call. `logged` tells the form of `decay`; `gain` and `norm` are factors of k and o, one per head and time."""

    mode: int
    q: Tensor
    k: Tensor
    v: Tensor
    state: Tensor
    cu_seqlens: Tensor | None
    scale: float
    a: Tensor | None = None
    b: Tensor | None = None
    beta: Tensor | None = None
    decay: Tensor | None = None
    logged: bool = False
    bonus: Tensor | None = None
    gain: Tensor | None = None
    norm: Tensor | None = None
    ones: bool = False
    """Whether the checkpoints have one more column, of v = 1: mLSTM's normaliser."""

    def __post_init__(self):
        self.q, self.k, self.v = dense(self.q), dense(self.k), dense(self.v)
        self.a, self.b = dense(self.a), dense(self.b)
        self.vector = self.decay is not None and self.decay.dim() == 4
        if self.vector:  # one number a head is read wherever it lies: mLSTM keeps its own head by head
            self.decay = dense(self.decay)
        self.state = self.state.contiguous()
        self.bonus = contiguous(self.bonus)
        self.starts = starts(self.cu_seqlens)
        self.keeps = self.mode in (DELTA, DPLR) or self.ones

    def pack(self, checkpoints: int, kept: int) -> tuple:
        """The fields of the C struct `matrix`."""
        _, steps, heads, keys = self.q.shape
        sequences, value_heads, _, values = self.state.shape
        return (
            *(self.mode, sequences, steps, heads, value_heads, keys, values),
            *(self.vector, self.logged, self.ones, interval(keys, values), address(self.starts), self.scale),
            *(*view(self.q), *view(self.k), *view(self.v), *view(self.a), *view(self.b)),
            *(*view(self.beta), *view(self.decay), *view(self.gain), *view(self.norm)),
            *(address(self.bonus), checkpoints, kept),
        )


def view(x: Tensor | None) -> tuple[int, ...]:
    """Address and the strides of batch, time and head."""
    return _NO_VIEW if x is None else (x.data_ptr(), *x.stride()[:3])


def interval(keys: int, values: int) -> int:
    """Steps between checkpoints: their memory, K·V / interval a step, stays below that of q, k, v and o."""
    return 64 if keys * values <= 128 * 128 else 128


def trace_layout(v: Tensor, state: Tensor, cu_seqlens: Tensor | None, keeps: bool, ones: bool) -> tuple[int, int]:
    """Bytes of the checkpoints, and of the rows that are kept."""
    batch, steps, heads, values = v.shape
    sequences, _, keys, _ = state.shape
    places, size = slots(sequences, steps, interval(keys, values), cu_seqlens), state.element_size()
    return places * heads * (values + ones) * keys * size, batch * steps * heads * values * size * keeps


def trace_size(v: Tensor, state: Tensor, cu_seqlens: Tensor | None, keeps: bool, ones: bool = False) -> int:
    return sum(trace_layout(v, state, cu_seqlens, keeps, ones))


def forward(
    x: Arguments, save: bool, trace: Tensor | None = None, entry: Entry = _forward, more: tuple = ()
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The output, the last state, and the trace where it is asked for; `trace` is memory for it, if there is some.

    `entry` is mLSTM's with what it asks for `more`.
    """
    o = blank(x.v) if x.starts is None else torch.zeros(x.v.shape, dtype=x.v.dtype)
    after = torch.empty_like(x.state)
    checkpoints = kept = 0
    if save:
        split, rest = trace_layout(x.v, x.state, x.cu_seqlens, x.keeps, x.ones)
        trace = untouched(torch.empty(split + rest, dtype=torch.uint8)) if trace is None else trace
        checkpoints, kept = trace.data_ptr(), trace.data_ptr() + split if rest else 0
    entry(x.q.dtype, *x.pack(checkpoints, kept), *view(o), address(x.state), address(after), *more)
    return o, after, trace


def _share(items: int, values: int) -> int:
    """Columns worked on together, a multiple of 16: fewer where heads are few, so that all threads have work."""
    parts = max(1, min(4 if items < 4 else 2 if items < 8 else 1, values // 16))
    return max(1, -(-values // (16 * parts))) * 16


def backward(
    x: Arguments,
    grads: tuple[Tensor | None, ...],
    trace: Tensor,
    needs: Sequence[bool],
    names: Sequence[str],
    slope: Tensor | None = None,
) -> list[Tensor | None]:
    """The gradients of the op's tensors, which C knows by `names`, in the accumulation dtype; None where not needed.

    `slope` is that of mLSTM's normaliser.
    """
    batch, steps, heads, keys = x.q.shape
    sequences, value_heads, _, values = x.state.shape
    share = _share(sequences * heads, values)
    parts = max(1, -(-values // share))
    lead = (parts,) if parts > 1 else ()
    by_key, by_head = (*lead, batch, steps, heads, keys), (*lead, batch, value_heads, steps)
    shapes = {
        **{"q": by_key, "k": by_key, "a": by_key, "b": by_key, "beta": by_head, "gain": by_head},
        "decay": (*lead, batch, steps, value_heads, keys) if x.vector else by_head,
        "bonus": (*lead, sequences, value_heads, keys),
        "v": (batch, steps, value_heads, values),
        "state": (sequences, value_heads, keys, values),
        "n": (sequences, value_heads, keys),
    }
    new = x.state.new_empty if x.starts is None else x.state.new_zeros
    made = {
        name: untouched(new(shapes[name])) for name, need in zip(names, needs, strict=True) if need and name in shapes
    }
    if "bonus" in made:
        made["bonus"].zero_()
    split, rest = trace_layout(x.v, x.state, x.cu_seqlens, x.keeps, x.ones)
    at = trace.data_ptr()
    go, after, after_n = (*grads, None)[:3]
    go, after, after_n = dense(go), contiguous(after), contiguous(after_n)
    _backward(
        x.q.dtype,
        *x.pack(at, at + split if rest else 0),
        *(*view(go), *view(slope), share, address(after), address(after_n)),
        *(address(made.get(name)) for name in _GRADIENTS),
    )
    for name, tensor in made.items():
        if lead and name not in ("v", "state", "n"):
            tensor = tensor.sum(0)
        made[name] = tensor.transpose(1, 2) if shapes[name] is by_head else tensor
    if "bonus" in made:
        made["bonus"] = made["bonus"].sum(0)
    return [made.get(name) for name in names]
