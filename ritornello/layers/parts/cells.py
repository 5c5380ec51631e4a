"""Layers around a cell: its state as named leaves, and the layer that is a cell and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.layers.base import Call, Layer, Leaf
from ritornello.typing import Tensor, Tree

__all__ = ["CellLayer", "cell_leaves", "run_cell", "run_complex"]


def cell_leaves(cell: Cell, names: Sequence[str]) -> dict[str, Leaf]:
    """The tensors of a cell's state under these names. A cell starts from a constant, mostly zero."""
    start = pytree.tree_leaves(cell.initial_state(1, torch.empty(1, 0)))
    return {n: Leaf(tuple(t.shape[1:]), fill=t.min().item()) for n, t in zip(names, start, strict=True)}


def run_cell(call: Call, cell: Cell, names: Sequence[str], x: Tree, state: Mapping[str, Any]) -> tuple[Tensor, dict]:
    """The outputs of a cell, and its last state by name."""
    before = tuple(state[name] for name in names)
    y, last = call.run(cell, x, before[0] if len(names) == 1 else before)
    return y, dict(zip(names, pytree.tree_leaves(last), strict=True))


def run_complex(call: Call, cell: Cell, x: Tensor, state: Mapping[str, Any]) -> tuple[Tensor, dict]:
    """The outputs of a cell with one complex state, and its last state h as pairs of real numbers."""
    y, h = call.run(cell, x, torch.view_as_complex(state["h"].contiguous()))
    return y, {"h": torch.view_as_real(h)}


class CellLayer(Layer):
    """A layer that is a cell: x goes in, what the cell reads comes out, the cell's state is the layer's.

    A final class sets `cell`, and `names` for a state of several tensors.
    """

    cell: Cell
    names: Sequence[str] = ("h",)

    def leaves(self):
        return cell_leaves(self.cell, self.names)

    def mix(self, x, state, call: Call):
        return run_cell(call, self.cell, self.names, x, state)
