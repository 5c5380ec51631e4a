"""What the wrappers of the matrix-state kernels share: the C struct, the layout of the trace, and both passes.

The trace holds S before every `interval` steps, and one row of V numbers a step that the forward pass had at hand
(`src/matrix.h`): the backward pass recomputes the states between two checkpoints in the first cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ritornello.kernels.native._library import Entry
from ritornello.kernels.native._tensors import address, blank, dense, starts, untouched
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["BONUS", "DELTA", "DPLR", "FORWARD", "LINEAR", "Arguments", "backward", "forward", "trace_size", "view"]

LINEAR, BONUS, DELTA, DPLR = range(4)

COMMON = "12q d 39q"
FORWARD = COMMON + "6q"
_forward = Entry("matrix_forward", FORWARD)
_backward = Entry("matrix_backward", COMMON + "22q")

_NO_VIEW = (0, 0, 0, 0)
_BY_HEAD = ("beta", "gain", "decay")  # (B, Hv, T) in C, unless there is one for each key
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
        for name in ("q", "k", "v", "a", "b"):
            setattr(self, name, dense(getattr(self, name)))
        self.vector = self.decay is not None and self.decay.dim() == 4
        if self.vector:  # one number a head is read wherever it lies: mLSTM keeps its own head by head
            self.decay = dense(self.decay)
        self.state = self.state.contiguous()
        self.bonus = None if self.bonus is None else self.bonus.contiguous()
        self.starts = starts(self.cu_seqlens)
        self.keeps = self.mode in (DELTA, DPLR) or self.ones
        self.dtype = accumulation_dtype(self.q.dtype)

    def pack(self, checkpoints: int, kept: int) -> tuple:
        """The fields of the C struct `matrix`."""
        _, steps, heads, keys = self.q.shape
        return (
            *(self.mode, self.state.shape[0], steps, heads, self.v.shape[2], keys, self.v.shape[3]),
            *(self.vector, self.logged, self.ones, interval(keys, self.v.shape[3]), address(self.starts), self.scale),
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


def trace_layout(
    q: Tensor, v: Tensor, state: Tensor, cu_seqlens: Tensor | None, keeps: bool, ones: bool
) -> tuple[int, int]:
    """Bytes of the checkpoints, and of the rows that are kept."""
    batch, steps, _, keys = q.shape
    value_heads, values = v.shape[2:]
    every = interval(keys, values)
    slots = batch * -(-steps // every) if cu_seqlens is None else steps // every + state.shape[0]
    size = state.element_size()
    return slots * value_heads * (values + ones) * keys * size, batch * steps * value_heads * values * size * keeps


def trace_size(q: Tensor, v: Tensor, state: Tensor, cu_seqlens: Tensor | None, keeps: bool, ones: bool = False) -> int:
    return sum(trace_layout(q, v, state, cu_seqlens, keeps, ones))


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
        split, rest = trace_layout(x.q, x.v, x.state, x.cu_seqlens, x.keeps, x.ones)
        trace = untouched(torch.empty(split + rest, dtype=torch.uint8)) if trace is None else trace
        checkpoints, kept = trace.data_ptr(), trace.data_ptr() + split if rest else 0
    entry(x.q.dtype, *x.pack(checkpoints, kept), *view(o), address(x.state), address(after), *more)
    return o, after, trace


def _share(x: Arguments) -> int:
    """Columns worked on together, a multiple of 16: fewer where heads are few, so that all threads have work."""
    items, values = x.state.shape[0] * x.q.shape[2], x.v.shape[3]
    parts = max(1, min(4 if items < 4 else 2 if items < 8 else 1, values // 16))
    return max(1, -(-values // (16 * parts))) * 16


def backward(
    x: Arguments, go: Tensor | None, last: tuple[Tensor | None, ...], trace: Tensor, wanted: list[str], **gates: Tensor
) -> list[Tensor | None]:
    """The gradients that are `wanted`, by name, in the accumulation dtype.

    `gates` are mLSTM's: `slope` of the normaliser, `n` for the shape of its gradient.
    """
    batch, steps, heads, keys = x.q.shape
    value_heads = x.v.shape[2]
    by_head = (batch, value_heads, steps)
    share, slope, n = _share(x), gates.get("slope"), gates.get("n")
    parts = max(1, -(-x.v.shape[3] // share))
    new = torch.empty if x.starts is None else torch.zeros
    shapes = {
        "q": (parts, batch, steps, heads, keys),
        "k": (parts, batch, steps, heads, keys),
        "a": (parts, batch, steps, heads, keys),
        "b": (parts, batch, steps, heads, keys),
        "v": x.v.shape,
        "beta": (parts, *by_head),
        "gain": (parts, *by_head),
        "decay": None if x.decay is None else (parts, *(x.decay.shape if x.vector else by_head)),
        "bonus": (parts, x.state.shape[0], value_heads, keys),
        "state": x.state.shape,
        "n": None if n is None else n.shape,
    }
    made = {name: untouched(new(shapes[name], dtype=x.dtype)) for name in wanted if shapes[name] is not None}
    if "bonus" in made:
        made["bonus"].zero_()
    split, rest = trace_layout(x.q, x.v, x.state, x.cu_seqlens, x.keeps, x.ones)
    at = trace.data_ptr()
    go = None if go is None else dense(go)
    after, after_n = ((None if g is None else g.contiguous()) for g in (*last[:2], None)[:2])
    _backward(
        x.q.dtype,
        *x.pack(at, at + split if rest else 0),
        *(*view(go), *view(slope), share, address(after), address(after_n)),
        *(address(made.get(name)) for name in _GRADIENTS),
    )
    for name, tensor in made.items():
        if name not in ("v", "state", "n"):
            whole = tensor[0] if parts == 1 else tensor.sum(0)
            made[name] = whole.transpose(1, 2) if name in _BY_HEAD and whole.dim() == 3 else whole
    if "bonus" in made:
        made["bonus"] = made["bonus"].sum(0)
    return [made.get(name) for name in wanted]
