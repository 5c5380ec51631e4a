"""Gradients through the states that a solver found, by the implicit function theorem."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from ritornello.method.newton._linearise import SLAB, System, slabs
from ritornello.typing import Tensor

__all__ = ["attach"]

PIECES = 32
"""The step is differentiated in at most so many pieces of time: they bound what its intermediate results take."""


def attach(system: System, u: list[Tensor], state: list[Tensor], spans: list[tuple[int, int]]) -> list[Tensor]:
    """The states (B, T, ...) that `system` holds, as a function of u, of the first state and of all that the step uses.

    One step from all states at once, y_t = f(h_{t−1}, u_t), is h_t again, and carries the derivatives by everything but
    h_{t−1}. What is missing is how the gradient runs back through time, g_{t−1} = J_tᵀ g_t + ∂L/∂h_{t−1}: one reversed
    scan, in between. J is that of the solution, in full, whatever Jacobian the solver went by.

    Args:
        u, state: the leaves of the input (B, T, ...) and of the first state, with their history.
        spans: the windows of time in which J is formed, in order.
    """
    with torch.enable_grad():
        stepped = _steps(system, u, state)
        if not any(y.requires_grad for y in stepped):
            return [h.detach() for h in system.structure.from_order(system.guess)]
        return list(_BackThroughTime.apply(system, spans, *stepped))  # type: ignore[misc]


def _steps(system: System, u: list[Tensor], state: list[Tensor]) -> list[Tensor]:
    """f(h_{t−1}, u_t) at all times, recorded; recomputed piece by piece in the backward pass."""
    s, length = system.structure, system.length
    batch = system.h.shape[0]
    steps = min(max(SLAB // max(batch * system.width, 1), -(-length // PIECES)), length)
    pieces = [time for _, time in slabs(1, length, 1, steps)]
    # One split for all pieces: the backward pass of slices would fill a tensor of all times for each.
    inputs = zip(*(x.split(steps, 1) for x in u), strict=True)

    def step(first: bool, *leaves: Tensor) -> tuple[Tensor, ...]:
        now, before, start = leaves[: len(u)], leaves[len(u)], leaves[len(u) + 1 :]
        h = s.from_order(before)
        if first:
            h = [torch.cat([h0.unsqueeze(1), x[:, 1:]], 1) for h0, x in zip(start, h, strict=True)]
        new = system.cell.step(
            pytree.tree_unflatten([x.flatten(0, 1) for x in now], system.spec),
            s.layout.tree([x.flatten(0, 1) for x in h]),
        )
        return tuple(y.unflatten(0, (batch, -1)) for y in pytree.tree_leaves(new))

    found = []
    for time, now in zip(pieces, inputs, strict=True):
        start = state if time.start == 0 else ()
        arguments = (time.start == 0, *now, system.h[:, time], *start)
        found.append(checkpoint(step, *arguments, use_reentrant=False, preserve_rng_state=False))
    return [torch.cat(parts, 1) for parts in zip(*found, strict=True)]


class _BackThroughTime(torch.autograd.Function):
    """Forward the states as the solver left them; backward g_t = J_{t+1}ᵀ g_{t+1} + ∂L/∂h_t."""

    @staticmethod
    def forward(ctx: Any, system: System, spans: list[tuple[int, int]], *stepped: Tensor) -> tuple[Tensor, ...]:
        ctx.system, ctx.spans = system, spans
        ctx.set_materialize_grads(False)
        return tuple(h.clone() for h in system.structure.from_order(system.guess))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        system: System = ctx.system
        device = system.h.device.type
        shape = system.guess.shape[:2]
        given = [
            system.h.new_zeros(*shape, *s) if g is None else g
            for g, s in zip(grads, system.structure.layout.shapes, strict=True)
        ]
        with torch.autocast(device, enabled=False):
            g = back_through_time(system, system.structure.to_order(given, 2), ctx.spans)
        return None, None, *system.structure.from_order(g)


def back_through_time(system: System, given: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """g_t = J_{t+1}ᵀ g_{t+1} + ∂L/∂h_t for `given` ∂L/∂h (B, T, N), likewise."""
    found, carried = torch.empty_like(given), given.new_zeros(given.shape[0], given.shape[2])
    for start, stop in reversed(spans):
        window = system.window(start, stop)
        count = stop - start
        # Times run backwards here. What crosses the border from the window after this one, `carried`, is already
        # J_{stop+1}ᵀ g_{stop+1}: it is added to the first; so the Jacobian of the last of these times is left over.
        transposed = system.h.new_empty(given.shape[0], count + 1, *system.structure.block_shape)
        transposed[:, 0] = 0
        for row, time, _, block in window.pieces():
            turned = _transpose(block, window.structure.size, window.structure.dense).flip(1)
            transposed[row, count - time.stop + 1 : count - time.start + 1] = turned
        added = given.new_zeros(given.shape[0], count + 1, given.shape[2])
        added[:, :-1] = given[:, start:stop].flip(1)
        added[:, 0] += carried
        g = window.scan(transposed, added)
        if not bool(g.isfinite().all()):
            g = _by_steps(window, transposed, added)  # products of Jacobians overflowed where g itself does not
        found[:, start:stop], carried = g[:, :-1].flip(1), g[:, -1]
    return found


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
