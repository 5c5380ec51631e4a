"""A recurrence as a person writes it: a module with a `step`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ritornello._written import check_methods, describe, initialised
from ritornello.errors import InputError
from ritornello.transition import MLSTM, MatrixTransition, Selective, Transition
from ritornello.typing import Tensor, Tree, accumulated, accumulation_dtype

__all__ = ["AffineCell", "Cell", "demand_run", "demand_transition"]


class Cell(nn.Module):
    """A recurrence h_t = step(u_t, h_{t−1}) with u = drive(x) and y = read(u, h).

    `step`, and `initial_state` or a `state_shape`, are all that must be written:

        class Decaying(rt.Cell):
            state_shape = (64,)
            def step(self, u, h):
                return torch.tanh(0.9 * h + u)

        y, state, _ = rt.run(Decaying(), x)          # x (B, T, 64)

    `step` is pure: it is called with one time, with many flattened into the batch, and under forward-mode derivatives.
    `drive` and `read` see all times at once and must be pointwise in time. `u` and `h` may be pytrees; `u` has leading
    (B, T), `step` sees it with leading (B,).
    """

    state_shape: tuple[int, ...] | None = None
    fused_anywhere: ClassVar[bool] = False
    """Whether `fused` is a program of tensors for any device, not the loop of an op where the op has no kernel."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        check_methods(cls, Cell)
        initialised(cls, "super().__init__()")

    @abstractmethod
    def step(self, u: Tree, h: Tree) -> Tree:
        """The state after one step."""
        raise NotImplementedError(f"{type(self).__name__} has no step(u, h): write the recurrence there.")

    def initial_state(self, batch: int, like: Tensor) -> Tree:
        """The state before the first step, with leading (batch,); `like` is x, for device and dtype."""
        if self.state_shape is None:
            raise NotImplementedError(
                f"{type(self).__name__} has neither initial_state(batch, like) nor a state_shape. Write one of them."
            )
        sizes = self.state_shape
        if not isinstance(sizes, tuple | list) or not all(hasattr(size, "__index__") for size in sizes):
            raise InputError(
                f"`state_shape` of {type(self).__name__} is {self.state_shape!r}; wanted the sizes of the state "
                "without the batch, in a tuple: (64,)."
            )
        return like.new_zeros((batch, *self.state_shape), dtype=accumulation_dtype(like.dtype))

    def drive(self, x: Tree) -> Tree:
        """What each step is given, computed for all times at once."""
        return x

    def read(self, u: Tree, h: Tree) -> Any:
        """The outputs from the states at all times."""
        return h

    def fused(self, u: Tree, h: Tree, cu_seqlens: Tensor | None = None) -> tuple[Tree, Tree] | None:
        """All steps in one call of an op: the states at all times and the last one. None where there is no such op."""
        return None


class AffineCell(Cell):
    """A recurrence whose step is affine in the state (or another associative map): it is written as a Transition.

    `transition(u)`, and where the state is not itself the output `query(u)` and `finish(u, o)`, are all that must be
    written; `step` and the initial state follow.

        class Leaky(rt.AffineCell):
            def transition(self, u):
                return rt.transition.Diagonal(torch.full_like(u, 0.9), u)
    """

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        check_methods(cls, AffineCell)

    @abstractmethod
    def transition(self, u: Tree) -> Transition:
        """The map of the state at all times; tensors with leading (B, T)."""
        raise NotImplementedError(f"{type(self).__name__} has no transition(u): return a rt.transition.Transition.")

    def query(self, u: Tree) -> Tree:
        """What reads the state, for `Transition.scan_read`; None where the state is the output."""
        return None

    def finish(self, u: Tree, o: Tensor) -> Any:
        """The outputs from what was read."""
        return o

    def read(self, u: Tree, h: Tree) -> Any:
        """The outputs from the states at all times, (B, T, ...); no method stores those of a matrix state.

        Raises:
            InputError: the output reads the state before the step (a transition with a bonus).
        """
        t = self.transition(u)
        if getattr(t, "bonus", None) is not None:
            raise InputError(
                f"{type(self).__name__} reads the state before each step (its transition has a bonus), which the "
                "states after the steps do not tell. Run it with rt.run(cell, x)."
            )
        query = self.query(u)
        if query is not None:
            query = pytree.tree_map(accumulated, query)
        return self.finish(u, t.wide().read(query, None, h).to(t.lead.dtype))

    def initial_state(self, batch: int, like: Tensor) -> Tree:
        if self.state_shape is not None:
            return super().initial_state(batch, like)
        with torch.no_grad():  # the transition of no time tells the state's shapes
            return demand_transition(
                self, self.transition(self.drive(like.new_zeros((batch, 1, *like.shape[2:]))))
            ).start()

    def step(self, u: Tree, h: Tree) -> Tree:
        one = self.transition(pytree.tree_map(lambda t: t.unsqueeze(1), u))
        return one.map(lambda t: t.squeeze(1)).apply(h)


def demand_transition(cell: AffineCell, made: Any) -> Transition:
    """What ``cell.transition(u)`` returned.

    Raises:
        InputError: it is no Transition.
    """
    if not isinstance(made, Transition):
        raise InputError(
            f"transition(u) of {type(cell).__name__} returned a {type(made).__name__}; wanted a "
            "ritornello.transition.Transition, such as Diagonal(a, b)."
        )
    return made


def demand_run(cell: AffineCell, t: Transition, query: Tree, state: Tree, lead: Tensor) -> None:
    """Refuse what an affine cell made of an x with the leading dimensions of `lead`: its transition, what reads it and
    the state that it starts from.

    Raises:
        InputError: the transition has another batch or time, a query that does not read it, or another state.
    """
    name, kind = type(cell).__name__, type(t).__name__
    given = {n: s for n in t.over_time if (s := getattr(t, n)) is not None}
    if any(s.shape[:2] != lead.shape[:2] for s in given.values()):
        raise InputError(
            f"transition(u) of {name} returned {t!r}, for an x of (B, T) = {tuple(lead.shape[:2])}. Give all of its "
            "tensors that leading (B, T): one step for each time of x."
        )
    wanted = t.k.shape if isinstance(t, MatrixTransition | MLSTM) else None
    if (wanted and getattr(query, "shape", None) != wanted) or (query is None and isinstance(t, Selective)):
        what = f"a tensor of the shape of its k, {tuple(wanted)}" if wanted else "the pair (C, x)"
        raise InputError(
            f"query(u) of {name} returned {describe(query)}, and the state of its {kind} is read by {what}. Return "
            "that from query(u)."
        )
    if cell.state_shape is None and type(cell).initial_state is AffineCell.initial_state:
        return
    (own, own_spec), (its, its_spec) = pytree.tree_flatten(state), pytree.tree_flatten(start := t.start())
    if own_spec != its_spec or [s.shape[1:] for s in own] != [s.shape[1:] for s in its]:
        raise InputError(
            f"The initial state of {name} is {describe(state, 1)} for each sequence, and that of its {kind} is "
            f"{describe(start, 1)}. Leave out its state_shape and initial_state: they follow from the transition."
        )
