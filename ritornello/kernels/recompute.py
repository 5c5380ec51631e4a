"""The gradients of differentiable PyTorch, by running it once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ritornello.typing import Tensor

__all__ = ["recomputed"]


def recomputed(
    function: Callable[..., Sequence[Tensor]],
    tensors: Sequence[Tensor | None],
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of `function` at `tensors`, for those that need one, given the gradients by its results."""
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_(n) for t, n in zip(tensors, needs, strict=True)]
        results = function(*leaves)
    ends = [(r, g) for r, g in zip(results, grads, strict=False) if g is not None and r.requires_grad]
    wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    if not ends or not wanted:
        return [None] * len(tensors)
    found = iter(torch.autograd.grad([r for r, _ in ends], wanted, [g for _, g in ends], allow_unused=True))
    return [next(found) if n else None for n in needs]
