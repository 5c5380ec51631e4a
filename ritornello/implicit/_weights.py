"""The tensors of a cell as its forward pass found them, for a backward pass that takes the step again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch.nn.utils.stateless import _reparametrize_module

from ritornello.cell import Cell
from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["Weights"]


class Weights:
    """The parameters and buffers of `cell` at this moment, by name.

    When the backward pass takes the step again, the cell may hold others: ``torch.func.functional_call`` has given it
    its own back, or somebody has replaced one.
    """

    def __init__(self, cell: Cell):
        self._cell, self._named = cell, _named(cell)
        self._versions = {n: t._version for n, t in self._named.items() if t.requires_grad}

    @contextmanager
    def there(self) -> Iterator[None]:
        """The cell with these tensors, inside.

        Raises:
            InputError: one of them was written to since.
        """
        for name, version in self._versions.items():
            if self._named[name]._version != version:
                raise InputError(
                    f"`{name}` of {type(self._cell).__name__} was changed in place after the forward pass, whose steps "
                    "the backward pass takes again. Call backward() before optimizer.step(), or run the cell again."
                )
        now = _named(self._cell)
        others = {name: t for name, t in self._named.items() if now.get(name) is not t}
        if not others:
            yield
            return
        with _reparametrize_module(self._cell, others):
            yield


def _named(cell: Cell) -> dict[str, Tensor]:
    return dict(chain(cell.named_parameters(remove_duplicate=False), cell.named_buffers(remove_duplicate=False)))
