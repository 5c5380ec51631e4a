"""The cell whose step is an equation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from ritornello._written import check_methods, describe
from ritornello.cell import Cell
from ritornello.errors import ConvergenceError, InputError
from ritornello.implicit._anderson import fixed_point, rounding
from ritornello.implicit._gradient import LOOSE, attach
from ritornello.sequence import Sequence
from ritornello.typing import Tensor, Tree

__all__ = ["ImplicitCell", "Outputs"]

MOST = 500
"""Sweeps at most for one step."""


class Outputs(NamedTuple):
    """The outputs at all times, found without the states: what `read` is given in their place."""

    y: Tensor


class ImplicitCell(Cell):
    """A recurrence whose step is an equation: y_t = F(u_t, y_t, h_{t−1}), from whose solution the state h_t follows.

    The state is y_t itself, or a nest of tensors of which y_t is the first. `sweep` is F at all times at once, and all
    that must be written beside the initial state:

        class Mixed(rt.ImplicitCell):
            state_shape = (64,)

            def __init__(self):
                super().__init__()
                self.mix = nn.Linear(64, 64)

            def sweep(self, u, y, h, sequence):
                added = 0.1 * (u + torch.tanh(self.mix(y)))
                return rt.ops.diagonal_scan(torch.full_like(y, 0.9), added, h, cu_seqlens=sequence.cu_seqlens)

    Step by step the equation is solved at each time. In parallel (`Newton`) it is solved at all times together: the
    part of the recurrence that `sweep` scans is solved by the scan, and iterated is over the rest. Both come to the
    same numbers where the solution is unique; a sweep that contracts (|∂F/∂y| < 1) has one, and finds it.
    """

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        check_methods(cls, ImplicitCell)

    @abstractmethod
    def sweep(self, u: Tree, y: Tensor, h: Tree, sequence: Sequence) -> tuple[Tensor, Tree]:
        """What F makes of a guess: the outputs, and the last state.

        Args:
            u: what drives the steps, (B, T, ...).
            y: the guess of the outputs, (B, T, ...), in the state's dtype.
            h: the state before the first step, with leading (B,); (N,) of packed sequences.
            sequence: where the sequences begin and end; it shifts y by one step, and knows `cu_seqlens` for ops. Where
                T is 1 (without packing) F is written with PyTorch's own operations, which know forward derivatives.

        Returns:
            F(y) at all times, causal, and the state after the last step of each sequence.
        """
        raise NotImplementedError(f"{type(self).__name__} has no sweep(u, y, h, sequence): write the equation there.")

    def finish(self, u: Tree, y: Tensor) -> Any:
        """The outputs from the solution at all times."""
        return y

    def read(self, u: Tree, h: Tree | Outputs) -> Any:
        return self.finish(u, h.y if isinstance(h, Outputs) else pytree.tree_leaves(h)[0])

    def step(self, u: Tree, h: Tree) -> Tree:
        u = pytree.tree_map(lambda x: x.unsqueeze(1), u)
        before = pytree.tree_map(torch.Tensor.detach, h)
        fixed, first = pytree.tree_map(torch.Tensor.detach, u), pytree.tree_leaves(before)[0].unsqueeze(1)
        sequence, enough = Sequence(len(first), 1), LOOSE.get(first.dtype, 1e-5)
        with torch.no_grad():
            found = fixed_point(
                lambda y: self._swept(fixed, y, before, sequence), first, rounding(first.dtype), MOST, enough=enough
            )
        worst = float(found.residual.max()) if len(first) else 0.0
        if not worst <= enough:
            raise ConvergenceError(
                f"The step of {type(self).__name__} was not solved: after {found.sweeps} sweeps |F(y) − y| is "
                f"{worst:.1e} of the largest |y|. Its equation must be a contraction, or nearly: make what it feeds "
                "back smaller, by its initialisation, weight decay or a lower learning rate."
            )
        return attach(self, u, found.y, h, sequence)[1]

    def _swept(self, u: Tree, y: Tensor, h: Tree, sequence: Sequence) -> Tensor:
        """The outputs of one sweep.

        Raises:
            InputError: it returned no pair, or outputs of another shape.
        """
        made = self.sweep(u, y, h, sequence)
        if isinstance(made, tuple) and len(made) == 2 and getattr(made[0], "shape", None) == y.shape:
            return made[0]
        pair = f"outputs {describe(made[0])}" if isinstance(made, tuple) and len(made) == 2 else describe(made)
        raise InputError(
            f"sweep(u, y, h, sequence) of {type(self).__name__} returned {pair}, for a guess y of {describe(y)}. "
            "Return a pair: the outputs in the shape of y, and the state after the last step."
        )
