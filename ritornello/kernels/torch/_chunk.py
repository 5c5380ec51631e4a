"""Chunks of time, and the products of decays inside them."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from ritornello.typing import Tensor

__all__ = [
    "Decays",
    "UnitLowerInverse",
    "carry",
    "chunked",
    "expand_heads",
    "scalar_decays",
    "unchunked",
    "vector_decays",
]


def expand_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H, K) → (B, T, heads, K): value head j reads head j // (heads / H)."""
    return x if x.shape[2] == heads else x.repeat_interleave(heads // x.shape[2], 2)


def chunked(x: Tensor, size: int, fill: float = 0.0) -> Tensor:
    """(B, T, H, *X) → (chunks, B·H, size, *X), the last chunk filled up."""
    batch, steps, heads = x.shape[:3]
    missing = -steps % size
    if missing:
        x = pad(x, (0, 0) * (x.dim() - 2) + (0, missing), value=fill)
    x = x.reshape(batch, x.shape[1] // size, size, heads, *x.shape[3:]).transpose(2, 3).transpose(0, 1)
    return x.reshape(x.shape[0], batch * heads, size, *x.shape[4:])


def unchunked(x: Tensor, batch: int, steps: int) -> Tensor:
    """The way back of `chunked`: (chunks, B·H, size, V) → (B, T, H, V)."""
    chunks, rows, size, value = x.shape
    x = x.reshape(chunks, batch, rows // batch, size, value).permute(1, 0, 3, 2, 4)
    return x.reshape(batch, chunks * size, rows // batch, value)[:, :steps]


class Decays:
    """The decays of chunks, as products that are never larger than one.

    Attributes:
        between: (..., i, j[, K]), the product over j < s ≤ i; 1 on the diagonal, 0 above.
        since: (..., i[, K]), the product over s ≤ i, from the chunk's start.
    """

    def __init__(self, between: Tensor, since: Tensor, vector: bool):
        self.between, self.since, self.vector = between, since, vector

    @property
    def axis(self) -> int:
        return -3 if self.vector else -2

    @property
    def whole(self) -> Tensor:
        """(..., 1[, K]) the product over the chunk."""
        return self.since.narrow(self.axis + 1, self.since.shape[self.axis + 1] - 1, 1)

    @property
    def until_end(self) -> Tensor:
        """(..., j[, K]) the product over s > j, to the chunk's end."""
        return self.between.select(self.axis, -1)

    def before(self) -> Decays:
        """The same up to the step before: the product over j < s < i, 0 where j ≥ i; and over s < i."""
        between = _shift(self.between, self.axis, 0.0)
        return Decays(between, _shift(self.since, self.axis + 1, 1.0), self.vector)


def _shift(x: Tensor, axis: int, first: float) -> Tensor:
    head = torch.full_like(x.narrow(axis, 0, 1), first)
    return torch.cat([head, x.narrow(axis, 0, x.shape[axis] - 1)], axis)


def scalar_decays(log_decay: Tensor | None, decay: Tensor | None, like: Tensor) -> Decays:
    """Decays of (..., C) scalars, in the dtype of `like` (..., C, K)."""
    size = like.shape[-2]
    later = torch.ones(size, size, dtype=torch.bool, device=like.device)
    if decay is not None:
        steps = torch.where(later.tril(-1), decay.unsqueeze(-1), 1.0)
        return Decays(steps.cumprod(-2).tril(), decay.cumprod(-1), False)
    if log_decay is None:
        return Decays(later.tril().to(like.dtype), like.new_ones(size), False)
    # float64: sums of thousands, whose differences near zero must keep seven digits.
    total = log_decay.double().clamp(min=-1000.0).cumsum(-1)  # e^−1000 is 0 there, and −∞ − (−∞) is not
    return Decays(_Differences.apply(total, like.dtype), total.to(like.dtype).exp(), False)


class _Differences(torch.autograd.Function):
    """exp(total_i − total_j) for j ≤ i, 0 above; written out: half of its passes over (..., C, C) are in place."""

    @staticmethod
    def forward(ctx, total, dtype):
        size = total.shape[-1]
        later = torch.ones(size, size, dtype=torch.bool, device=total.device).triu(1)
        between = (total.unsqueeze(-1) - total.unsqueeze(-2)).to(dtype).masked_fill_(later, float("-inf")).exp_()
        ctx.save_for_backward(between)
        return between

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        (between,) = ctx.saved_tensors
        grad = grad * between
        return grad.sum(-1, dtype=torch.float64) - grad.sum(-2, dtype=torch.float64), None


class UnitLowerInverse(torch.autograd.Function):
    """(I + L)⁻¹ of the strictly lower triangle L of a matrix (..., C, C)."""

    @staticmethod
    def forward(ctx, matrix):
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
        inverse = torch.linalg.solve_triangular(matrix, identity, upper=False, unitriangular=True)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        (inverse,) = ctx.saved_tensors
        return (inverse.mT @ grad @ inverse.mT).neg_().tril_(-1)


def vector_decays(log_decay: Tensor | None, decay: Tensor | None) -> Decays:
    """Decays of (..., C, K) vectors: row by row, so that nothing cancels and nothing overflows."""
    step = decay if log_decay is None else log_decay
    assert step is not None
    one, nothing = (1.0, 0.0) if log_decay is None else (0.0, float("-inf"))
    size = step.shape[-2]
    row, rows = torch.full_like(step[..., :1, :], one), []
    for number, now in enumerate(step.unsqueeze(-2).unbind(-3)):  # the first column is the chunk's start
        row = row * now if log_decay is None else row + now
        row = pad(row, (0, 0, 0, 1), value=one)
        rows.append(pad(row, (0, 0, 0, size - 1 - number), value=nothing))
    all_ = torch.stack(rows, -3)
    all_ = all_ if log_decay is None else all_.exp()
    return Decays(all_[..., 1:, :], all_[..., 0, :], True)


def carry(transition: Tensor, added: Tensor, state: Tensor, matrix: bool) -> tuple[Tensor, Tensor]:
    """S ← M S + N from chunk to chunk: the states before each chunk, and the last.

    M is a `matrix` (chunks, rows, K, K), or a factor for each row of S, (chunks, rows, 1 or K, 1).
    """
    states = _Carry.apply(transition, added, state, matrix)
    return states[:-1], states[-1].clone()  # a view would keep all states alive


class _Carry(torch.autograd.Function):
    """All states of `carry`. Its gradient is the same loop the other way, with one product of all chunks at the end."""

    @staticmethod
    def forward(ctx, transition, added, state, matrix):
        states = added.new_empty(added.shape[0] + 1, *added.shape[1:])
        states[0] = state
        each = states.unbind(0)
        for m, n, old, new in zip(transition.unbind(0), added.unbind(0), each, each[1:], strict=False):
            torch.baddbmm(n, m, old, out=new) if matrix else torch.addcmul(n, m, old, out=new)
        ctx.save_for_backward(transition, states)
        ctx.matrix = matrix
        return states

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        transition, states = ctx.saved_tensors
        total = grad.clone(memory_format=torch.contiguous_format)
        each = total.unbind(0)
        backward = transition.mT if ctx.matrix else transition
        for m, old, new in zip(reversed(backward.unbind(0)), reversed(each[:-1]), reversed(each), strict=False):
            old.baddbmm_(m, new) if ctx.matrix else old.addcmul_(m, new)
        by_transition = total[1:] @ states[:-1].mT if ctx.matrix else (total[1:] * states[:-1]).sum(-1, keepdim=True)
        return by_transition.sum_to_size(transition.shape), total[1:], total[0], None
