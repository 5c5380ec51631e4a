"""h ← a ⊙ h + b over time in two passes over blocks, and the reverse scan that is its gradient.

The direct recurrence in (a, b): no logarithms, so a may have any sign, be zero or complex. Time is cut into blocks of
about √T steps, and one operation takes the same step of all blocks. The first pass finds what each block does to the
state, a product and a sum; a scan over the blocks, a short one, gives the state before each; the second pass runs them.
"""

from __future__ import annotations

import math

import torch

from ritornello.typing import Tensor

__all__ = ["Scan", "blocked_scan", "scan_gradients"]

LONGEST = 64  # steps of a loop


def blocked_scan(a: Tensor, b: Tensor, state: Tensor, reverse: bool = False) -> Tensor:
    """h at all times, from the state before the first step, or, in `reverse`, after the last. a, b: (B, T, D)."""
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    _scan(a, b, state, h, reverse)
    return h


def _scan(a: Tensor, b: Tensor, state: Tensor, h: Tensor, reverse: bool) -> None:
    steps = b.shape[1]
    if steps <= LONGEST:
        _loop(a, b, state, h, 1, reverse)
        return
    size = min(LONGEST, math.isqrt(steps))
    cut = steps // size * size
    # The steps that fill no block come first or last, whichever the scan reaches last.
    body, rest = (slice(steps - cut, steps), slice(0, steps - cut)) if reverse else (slice(0, cut), slice(cut, steps))
    a_blocks, b_blocks, h_blocks = (x[:, body].unflatten(1, (-1, size)) for x in (a, b, h))
    product, added = _summaries(a_blocks, b_blocks, reverse)
    after = torch.empty_like(added)
    _scan(product, added, state, after, reverse)
    first = state.unsqueeze(1)
    before = torch.cat([after[:, 1:], first] if reverse else [first, after[:, :-1]], 1)
    _loop(a_blocks, b_blocks, before, h_blocks, 2, reverse)
    if rest.stop > rest.start:
        _loop(a[:, rest], b[:, rest], after[:, 0 if reverse else -1], h[:, rest], 1, reverse)


def _ordered(x: Tensor, dim: int, reverse: bool) -> list[Tensor]:
    steps = list(x.unbind(dim))
    return steps[::-1] if reverse else steps


def _loop(a: Tensor, b: Tensor, state: Tensor, h: Tensor, dim: int, reverse: bool) -> None:
    steps = zip(_ordered(a, dim, reverse), _ordered(b, dim, reverse), _ordered(h, dim, reverse), strict=True)
    for now_a, now_b, now in steps:
        state = torch.addcmul(now_b, now_a, state, out=now)


def _summaries(a: Tensor, b: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The product of the a of each block, and its last h from zero."""
    a_steps, b_steps = _ordered(a, 2, reverse), _ordered(b, 2, reverse)
    product, added = a_steps[0].clone(), b_steps[0].clone()
    for now_a, now_b in zip(a_steps[1:], b_steps[1:], strict=True):
        product.mul_(now_a)
        torch.addcmul(now_b, now_a, added, out=added)
    return product, added


def scan_gradients(a: Tensor, h: Tensor, state: Tensor, grad: Tensor | None, grad_last: Tensor | None):
    """The gradients of a, b and the state. grad: (B, T, D) by h, grad_last: (B, D) by the last h."""
    grad = torch.zeros_like(h) if grad is None else grad.to(h.dtype)
    grad_last = torch.zeros_like(state) if grad_last is None else grad_last
    # g_t = grad_t + ā_{t+1} g_{t+1}, and the last step is followed by the identity.
    following = torch.empty_like(a)
    following[:, :-1] = a[:, 1:].conj()
    following[:, -1] = 1
    g = blocked_scan(following, grad, grad_last, reverse=True)
    grad_a = following
    torch.mul(g[:, 1:], h[:, :-1].conj().resolve_conj(), out=grad_a[:, 1:])
    torch.mul(g[:, 0], state.conj().resolve_conj(), out=grad_a[:, 0])
    return grad_a, g, a[:, 0].conj() * g[:, 0]


class Scan(torch.autograd.Function):
    """`blocked_scan`, differentiable: h at all times."""

    @staticmethod
    def forward(ctx, a, b, state):
        h = blocked_scan(a, b, state)
        ctx.save_for_backward(a, h, state)
        return h

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        a, h, state = ctx.saved_tensors
        return scan_gradients(a, h, state, grad, None)
