"""Cells for the tests of Newton's method: those of the library, and some written only here."""

from __future__ import annotations

import torch
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello import cells
from ritornello.layers.parts.gates import StepDecay

SIZE = 6


def _inputs(length: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(2, length, SIZE, dtype=dtype)


def _m2rnn_inputs(length: int, dtype: torch.dtype):
    q, k, v = (torch.randn(2, length, 2, 3, dtype=dtype) for _ in range(3))
    return q, k, v, torch.rand(2, length, 2, dtype=dtype)


def _projected(length: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(2, length, 2 * 6 + 2 * 4 + 2, dtype=dtype)


class _Leaks(torch.nn.Module):
    """A stable system for LTICell."""

    def forward(self, dtype: torch.dtype):
        A = torch.tensor([[0.9, 0.1], [-0.1, 0.8]], dtype=dtype).expand(SIZE, 2, 2)
        one = torch.ones(SIZE, 2, dtype=dtype)
        return A, one, 0.5 * one, one[:, 0]


def _lmu() -> rt.Cell:
    return cells.LMUCell(SIZE, SIZE, 0.9 * torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))


SPECIAL = {
    "FPRNNCell": lambda: cells.FPRNNCell(SIZE),
    "ImplicitSSMCell": lambda: cells.ImplicitSSMCell(SIZE, 2, 3, 4, StepDecay(2)),
    "LMUCell": _lmu,
    "LTICell": lambda: cells.LTICell(_Leaks(), SIZE, 2),
    "M2RNNCell": lambda: cells.M2RNNCell(2, 3, 3),
    "SRUCell": lambda: cells.SRUCell(SIZE),
    "WaveRNNCell": lambda: cells.WaveRNNCell(SIZE, 1, SIZE, activation="tanh"),
}
INPUTS = {"ImplicitSSMCell": _projected, "M2RNNCell": _m2rnn_inputs}
UNSTABLE = {"BilinearCell", "WaveRNNCell", "M2RNNCell"}
"""Cells that start on the edge of stability, where rounding errors of float32 add up over thousands of steps."""


def names() -> list[str]:
    """Every cell of the library that is not affine."""
    found = [getattr(cells, name) for name in cells.__all__]
    return [
        c.__name__ for c in found if isinstance(c, type) and issubclass(c, rt.Cell) and not issubclass(c, rt.AffineCell)
    ]


def explicit() -> list[str]:
    """Those whose step is no equation: of these Newton's method forms Jacobians, and counts its own iterations."""
    return [name for name in names() if not issubclass(getattr(cells, name), rt.ImplicitCell)]


def build(name: str, length: int, dtype: torch.dtype):
    """A cell and its input."""
    torch.manual_seed(1)
    make = SPECIAL.get(name, lambda: getattr(cells, name)(SIZE, SIZE))
    return make().to(dtype), INPUTS.get(name, _inputs)(length, dtype)


class Tanh(rt.Cell):
    """h ← tanh(W h + u), W of a given gain."""

    def __init__(self, size: int, gain: float, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.state_shape = (size,)
        self.weight = torch.nn.Parameter(gain * torch.randn(size, size, dtype=dtype) / size**0.5)

    def step(self, u, h):
        return torch.tanh(u + h @ self.weight.T)


class Bound(rt.Cell):
    """What a user might write: a nest of states, a leaf that is only remembered, a parameter within a module."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(SIZE, SIZE, dtype=torch.float64)
        self.decay = torch.nn.Parameter(torch.rand(SIZE, dtype=torch.float64))

    def initial_state(self, batch, like):
        return {"fast": like.new_zeros(batch, SIZE), "slow": (like.new_zeros(batch, SIZE), like.new_zeros(batch, 2, 3))}

    def step(self, u, h):
        slow, _ = h["slow"]
        fast = torch.tanh(self.gate(h["fast"]) + u - slow)
        slow = self.decay * slow + (1 - self.decay) * fast.abs()
        return {"fast": fast, "slow": (slow, fast.unflatten(-1, (2, 3)).sin())}


def numbers(cell, x, method, state=None, **given):
    """Outputs, last state and all gradients, and the statistics, for a fixed random loss."""
    x = pytree.tree_map(lambda t: t.detach().clone().requires_grad_(), x)
    if state is None:
        state = cell.initial_state(2, pytree.tree_leaves(x)[0])
    state = pytree.tree_map(lambda t: t.detach().clone().requires_grad_(), state)
    result = rt.run(cell, x, state, method, **given)
    found = pytree.tree_leaves((result.y, result.state))
    generator = torch.Generator().manual_seed(0)
    loss = sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in found)
    wanted = [*pytree.tree_leaves((x, state)), *cell.parameters()]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    grads = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True)]
    return [t.detach() for t in (*found, *grads)], result.stats


def worst(got, want) -> float:
    """The largest error of any tensor, relative to 0.1 + its largest value."""
    return max(
        float((a - b).detach().abs().max() / (0.1 + b.detach().abs().max()))
        for a, b in zip(got, want, strict=True)
        if b.numel()
    )
