"""The first guess: every chunk of time by itself, then again from better states at its start."""

from __future__ import annotations

import math

import torch
from torch.utils import _pytree as pytree

from ritornello.method.newton._linearise import System, usable
from ritornello.transition import Transition
from ritornello.typing import Tensor

__all__ = ["start"]

PASSES, SHOTS, STALLS = 4, 8, 0.9
"""The most plain passes and shots, and the share of the last correction above which shots end."""


def start(system: System, tol: float, counts: Tensor | None) -> int:
    """Fill in the guess, in place; returns the number of passes over the times.

    In the first pass all chunks start from the state before the first step: h_t is what the steps of its chunk up to it
    make of that. In the next each starts where the one before it ended in the last pass. A pass costs one evaluation of
    the step at all times, a third of an iteration or less, and lets every time see one chunk further back; a cell that
    forgets within a few chunks needs hardly any iteration then. Passes end when no chunk's first state changes by more
    than √tol, which one iteration mends, or when they change no less than before.

    A cell that remembers for longer goes on by multiple shooting, Newton's method for the first states s of the chunks
    alone: with F_c what a chunk makes of s_c and M_c its derivative, the product of the steps' Jacobians,
    s ← s + d, d_{c+1} = M_c d_c + F_c(s_c) − s_{c+1}. Within the chunks nothing is linearised: where the kinks of a
    relu or a maximum lie is found from the few states between them, and not from those of all times. Not for dense
    Jacobians, whose products cost as much as the scan of an iteration, nor where only a part of them is kept.
    """
    size = _chunk(system)
    count = -(-system.length // size)
    begin, last, shots = system.h[:, :1].expand(-1, count, -1), float("inf"), 0
    inside = None if counts is None else counts[:, size - 1 : -1 : size]
    may_shoot = not system.structure.dense and system.structure.whole is None
    for done in range(1, PASSES + SHOTS + 1):
        ends, maps = _one_pass(system, size, begin, shots > 0)
        if count == 1:
            return done
        change = ends - begin[:, 1:]
        if maps is not None:
            change = system.scan(maps, change)
        scale = system.peak(system.guess, counts)
        most = float(system.ratio(system.peak(change, inside), scale).max())
        if done < count <= PASSES and not most <= tol**0.5:
            begin, last = torch.cat([begin[:, :1], ends], 1), most
            continue
        if not tol**0.5 < most < float("inf") or (shots > 1 and most > STALLS * last):
            return done
        if shots or done == PASSES or (done > 1 and most >= 0.5 * last):
            shots += 1
        if shots > (SHOTS if may_shoot else 0):
            return done
        begin, last = torch.cat([begin[:, :1], begin[:, 1:] + change], 1), most
    return done


def _chunk(system: System) -> int:
    """Steps of a chunk: as many as there are chunks; elsewhere than on a CPU, where a call costs more than it computes,
    16."""
    most = math.isqrt(system.length) if system.h.device.type == "cpu" else 16
    return min(max(most, 8), system.length)


def _one_pass(system: System, size: int, begin: Tensor, derive: bool) -> tuple[Tensor, Tensor | None]:
    """Run all chunks from their first states `begin` (B, chunks, N): the last states of all chunks but the last,
    (B, chunks − 1, N); and if asked for their derivatives by the first, (B, chunks − 1, \\*block_shape)."""
    s, rows, length = system.structure, len(system.h), system.length
    h = s.from_order(begin)
    total: Transition | None = None
    for step in range(size):
        running = len(range(step, length, size))  # the last chunk may be shorter
        h = [x[:, :running].flatten(0, 1) for x in h]
        u = pytree.tree_unflatten([usable(x[:, step::size].flatten(0, 1)) for x in system.u], system.spec)
        if derive:
            h, block = system.derivatives(u, h)
            block = block.unflatten(0, (rows, running))[:, : begin.shape[1] - 1]
            one = system.transition(block, block.new_zeros(*block.shape[:2], system.width))
            total = one if total is None else one.after(total)
        else:
            h = pytree.tree_leaves(system.cell.step(u, s.layout.tree(h)))
        h = [x.unflatten(0, (rows, running)) for x in h]
        system.guess[:, step::size] = s.to_order(h, 2)
    return system.guess[:, size - 1 : -1 : size], None if total is None else total.lead
