"""Whether the derivatives of a step are those of what it computes: the certificate rests on them.

A step that detaches a part of its state, computes it without autograd or has a backward pass of its own tells another
J than the one by which its errors grow. Seen in differences: Σ w (f(h + εv) − f(h − εv)) / 2ε against Σ w J v, for
random w and v, each tensor of the state by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.method.newton._layout import Layout
from ritornello.method.newton._structure import pull
from ritornello.typing import Tensor, Tree

__all__ = ["hides_derivatives"]

STEPS = (1e-2, 1e-3, 1e-4)
"""ε, relative to the largest number of each tensor. Smooth steps want it small, rounding wants it large."""
APART, ROUNDING, COARSE = 0.1, 10.0, 0.01
"""How far both may be apart, relative to the larger; how many roundings of the result a difference may hold; and the
share of the result above which these leave nothing to be seen."""

_known: WeakKeyDictionary[Cell, dict[object, bool]] = WeakKeyDictionary()


def hides_derivatives(cell: Cell, layout: Layout, u: Tree, h: Sequence[Tensor]) -> bool:
    """Whether most of the rows disagree for every ε, in any tensor of the state; looked at once for each kind of state.

    Args:
        u, h: a few inputs and the leaves of states, with leading (R,).
    """
    key = layout.spec, layout.shapes, h[0].dtype, h[0].device, cell.training
    known = _known.setdefault(cell, {})
    if key not in known:
        known[key] = _look(cell, layout, u, list(h))
    return known[key]


def _look(cell: Cell, layout: Layout, u: Tree, h: list[Tensor]) -> bool:
    generator = torch.Generator().manual_seed(0)

    def drawn(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x)

    along = [drawn(x) * _size(x) for x in h]
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in h]
        stepped = pytree.tree_leaves(cell.step(u, layout.tree(leaves)))
    weights = [drawn(x) for x in stepped]
    told = []
    for i in range(len(stepped)):
        only: list[Tensor | None] = [w if j == i else None for j, w in enumerate(weights)]
        found = zip(pull(stepped, leaves, only), along, strict=True)
        told.append(sum((_rows(g * v) for g, v in found), h[0].new_zeros(len(h[0]))))
    roundings = ROUNDING * torch.finfo(h[0].dtype).eps
    usable = [epsilon for epsilon in STEPS if roundings <= COARSE * epsilon]
    agreed = torch.full((len(stepped),), not usable)
    for epsilon in usable:
        ahead, behind = (
            pytree.tree_leaves(
                cell.step(u, layout.tree([x + sign * epsilon * v for x, v in zip(h, along, strict=True)]))
            )
            for sign in (1, -1)
        )
        for i, (w, a, b, y) in enumerate(zip(weights, ahead, behind, stepped, strict=True)):
            seen = _rows(w * (a - b)) / (2 * epsilon)
            noise = roundings / epsilon * _rows((w * y.detach()).abs())
            near = (seen - told[i]).abs() <= APART * torch.maximum(seen.abs(), told[i].abs()) + noise
            agreed[i] |= bool(2 * (near | ~seen.isfinite()).sum() >= len(near))  # beyond its domain nothing is known
    return not bool(agreed.all())


def _rows(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).sum(1)


def _size(x: Tensor) -> Tensor:
    """The largest |x|, or 1."""
    most = x.abs().max() if x.numel() else x.new_ones(())
    return torch.where(most > 0, most, torch.ones_like(most))
