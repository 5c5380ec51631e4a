"""The iterates one after the other, for those who want to see them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.method.newton._layout import Layout
from ritornello.method.newton._linearise import System
from ritornello.method.newton._structure import structure_of
from ritornello.typing import Tree

__all__ = ["iterates"]


def iterates(cell: Cell, u: Tree, state: Tree, count: int) -> Iterator[Tree]:
    """The first guess h_t = f(h_0, u_t), then the states (B, T, ...) after each of `count` steps of Newton's method.

    Args:
        u: what drives the steps, (B, T, ...).
        state: h_0, with leading (B,).
    """
    leaves, spec = pytree.tree_flatten(u)
    layout, first = Layout.of(type(cell).__name__, state), pytree.tree_leaves(state)
    with torch.no_grad():
        now = pytree.tree_map(lambda x: x[:, 0], u)
        structure = structure_of(cell, "auto", layout, now, pytree.tree_leaves(cell.step(now, state)))
        start = structure.to_order(first, 1)
        system = System(cell, structure, leaves, spec, start.unsqueeze(1).repeat(1, leaves[0].shape[1] + 1, 1))
        system.guess.add_(system.residual())
        yield _states(system)
        for _ in range(count):
            system.guess.add_(system.scan(*system.linearise()))
            yield _states(system)


def _states(system: System) -> Tree:
    return system.structure.layout.tree([x.clone() for x in system.structure.from_order(system.guess)])
