"""Gradients through the states that a solver found, by the implicit function theorem.

Forward, nothing is stored but the states. Backward goes over time in stretches, from the last: the Jacobians of one
and a reversed scan with them; then the step's own derivatives, piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from ritornello.implicit import Weights, first_only
from ritornello.method.newton._linearise import SLAB, System
from ritornello.typing import Tensor

__all__ = ["attach"]

STRETCHES, PIECES = 8, 4
"""Times are run back through in at most so many stretches, and the step is differentiated in so many pieces of each:
they bound what Jacobians and intermediate results take."""

Span = tuple[int, int]


def attach(system: System, u: list[Tensor], state: list[Tensor], spans: list[Span]) -> list[Tensor]:
    """The states (B, T, ...) that `system` holds, as a function of u, of the first state and of all that the step uses.

    One step from all states at once, y_t = f(h_{t−1}, u_t), is h_t again, and carries the derivatives by everything but
    h_{t−1}. What is missing is how the gradient runs back through time, g_{t−1} = J_tᵀ g_t + ∂L/∂h_{t−1}: one reversed
    scan, in between. J is that of the solution, in full, whatever Jacobian the solver went by.

    Args:
        u, state: the leaves of the input (B, T, ...) and of the first state, with their history.
        spans: the windows of time whose Jacobians fit the memory, in order.
    """
    if not system.structure.dense:
        spans = [s for start, stop in spans for s in _cut(system, start, stop, STRETCHES)]
    stretches, weights = [_cut(system, start, stop, PIECES) for start, stop in spans], Weights(system.cell)
    with torch.enable_grad():
        stepped = _steps(system, weights, u, state, [piece for pieces in stretches for piece in pieces])
        if not any(y.requires_grad for y in stepped):
            return [h.detach() for h in system.structure.from_order(system.guess)]
        return list(_BackThroughTime.apply(system, stretches, weights, *stepped))  # type: ignore[misc]


def _cut(system: System, start: int, stop: int, count: int) -> list[Span]:
    """At most `count` pieces, none shorter than what is stepped at once."""
    steps = max(SLAB // max(len(system.h) * system.width, 1), -(-(stop - start) // count), 1)
    return [(time, min(time + steps, stop)) for time in range(start, stop, steps)]


def _steps(system: System, weights: Weights, u: list[Tensor], state: list[Tensor], pieces: list[Span]) -> list[Tensor]:
    """f(h_{t−1}, u_t) in pieces of time, leaf by leaf; recorded, and computed again in the backward pass."""
    cell, s, spec, batch = system.cell, system.structure, system.spec, len(system.h)

    def step(first: bool, *leaves: Tensor) -> tuple[Tensor, ...]:
        now, before, start = leaves[: len(u)], leaves[len(u)], leaves[len(u) + 1 :]
        h = s.from_order(before)
        if first:
            h = [torch.cat([h0.unsqueeze(1), x[:, 1:]], 1) for h0, x in zip(start, h, strict=True)]
        with weights.there():
            new = cell.step(
                pytree.tree_unflatten([x.flatten(0, 1) for x in now], spec), s.layout.tree([x.flatten(0, 1) for x in h])
            )
        return tuple(y.unflatten(0, (batch, -1)) for y in pytree.tree_leaves(new))

    found, rest = [], list(u)
    for start, stop in pieces:
        now = []
        for i, x in enumerate(rest):
            piece, rest[i] = _Piece.apply(x, start, stop) if x.requires_grad else (x[:, start:stop], x)  # type: ignore
            now.append(piece)
        arguments = (start == 0, *now, system.h[:, start:stop], *(state if start == 0 else ()))
        found += checkpoint(step, *arguments, use_reentrant=False, preserve_rng_state=False)  # type: ignore[misc]
    return found


class _Piece(torch.autograd.Function):
    """x[:, start:stop], and x for the pieces after it.

    Backward every piece writes into one tensor for all times, which is handed on from the last to the first. Autograd's
    own would hold all pieces and their concatenation at once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        ctx.span, ctx.shape, ctx.like = (start, stop), x.shape, x.new_empty(0)
        ctx.set_materialize_grads(False)
        return x[:, start:stop], x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, piece: Tensor | None, whole: Tensor | None):
        found = ctx.like.new_zeros(ctx.shape) if whole is None else whole
        if piece is not None:
            found[:, slice(*ctx.span)] = piece
        return found, None, None


class _BackThroughTime(torch.autograd.Function):
    """Forward the states as the solver left them; backward g_t = J_{t+1}ᵀ g_{t+1} + ∂L/∂h_t, piece by piece."""

    @staticmethod
    def forward(
        ctx: Any, system: System, stretches: list[list[Span]], weights: Weights, *stepped: Tensor
    ) -> tuple[Tensor, ...]:
        # Saved, and not kept by the system, so that autograd frees them as soon as it is done.
        ctx.save_for_backward(system.h, *system.u)
        ctx.empty, ctx.stretches, ctx.weights = replace(system, h=system.h.new_empty(0), u=[]), stretches, weights
        ctx.set_materialize_grads(False)
        return tuple(h.clone() for h in system.structure.from_order(system.guess))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        first_only(f"{type(ctx.empty.cell).__name__} run with Newton()", "Run it with rt.Sequential().")
        h, *u = ctx.saved_tensors
        system: System = replace(ctx.empty, h=h, u=u)
        carried, found = torch.zeros_like(h[:, 0]), []
        with torch.autocast(h.device.type, enabled=False), ctx.weights.there():
            for pieces in reversed(ctx.stretches):
                start, stop = pieces[0][0], pieces[-1][1]
                window = system.window(start, stop)
                g, carried = _back_through(window, _given(window, grads, start, stop), carried)
                for a, b in reversed(pieces):
                    found += reversed(system.structure.from_order(g[:, a - start : b - start]))
        return None, None, None, *reversed(found)


def _given(window: System, grads: Sequence[Tensor | None], start: int, stop: int) -> Tensor:
    """∂L/∂h at the times of a window, (B, t, N) in order; 0 where a leaf was not used."""
    lead = window.guess.shape[:2]
    given = [
        window.h.new_zeros(*lead, *shape) if g is None else g[:, start:stop]
        for g, shape in zip(grads, window.structure.layout.shapes, strict=True)
    ]
    return window.structure.to_order(given, 2)


def _back_through(window: System, given: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """g_t = J_{t+1}ᵀ g_{t+1} + ∂L/∂h_t for `given` ∂L/∂h (B, t, N), and what crosses the border to the window before.

    Args:
        carried: (B, N) what has crossed the border from the window after this one, J_{stop+1}ᵀ g_{stop+1}.
    """
    count = window.length
    # Times run backwards here. `carried` is added to the first, and the last one's Jacobian is left over.
    transposed = window.h.new_empty(given.shape[0], count + 1, *window.structure.block_shape)
    transposed[:, 0] = 0
    for row, time, _, block in window.pieces():
        turned = _transpose(block, window.structure.size, window.structure.dense).flip(1)
        transposed[row, count - time.stop + 1 : count - time.start + 1] = turned
    added = given.new_zeros(given.shape[0], count + 1, given.shape[2])
    added[:, :-1] = given.flip(1)
    added[:, 0] += carried
    g = window.scan(transposed, added)
    if not bool(g.isfinite().all()):
        g = _by_steps(window, transposed, added)  # products of Jacobians overflowed where g itself does not
    return g[:, :-1].flip(1), g[:, -1]


def _transpose(block: Tensor, size: int, dense: bool) -> Tensor:
    if size == 1:
        return block
    return block.mT if dense else block.transpose(-3, -2)


def _by_steps(window: System, jacobian: Tensor, added: Tensor) -> Tensor:
    steps = window.transition(jacobian, added).unbind()
    g, found = torch.zeros_like(added[:, 0]).unflatten(-1, window.structure.state_shape), []
    for step in steps:
        g = step.apply(g)
        found.append(g)
    return torch.stack(found, 1).flatten(2)
