"""The first guess: every chunk of time by itself, then once more from where the chunk before it ended."""

from __future__ import annotations

import math

import torch
from torch.utils import _pytree as pytree

from ritornello.method.newton._linearise import System, usable
from ritornello.typing import Tensor

__all__ = ["start"]

PASSES = 4


def start(system: System, tol: float, counts: Tensor | None) -> int:
    """Fill in the guess, in place; returns the number of passes over the times.

    In the first pass all chunks start from the state before the first step: h_t is what the steps of its chunk up to it
    make of that. In the next each starts where the one before it ended in the last pass. A pass costs one evaluation of
    the step at all times, a third of an iteration or less, and lets every time see one chunk further back; a cell that
    forgets within a few chunks needs hardly any iteration then. Passes end when no chunk's last state changes by more
    than √tol, which one iteration mends, or when they change no less than before.
    """
    size = _chunk(system)
    ends, last_change = None, float("inf")
    for done in range(1, PASSES + 1):
        _one_pass(system, size, ends)
        before, ends = ends, system.guess[:, size - 1 :: size].clone()
        if size == system.length:
            return done  # one chunk
        if before is None:
            continue
        inside = None if counts is None else counts[:, size - 1 :: size]
        scale = system.peak(system.guess, counts)
        change = float(system.ratio(system.peak(ends - before, inside), scale).max())
        if not tol**0.5 < change < 0.5 * last_change:
            return done
        last_change = change
    return PASSES


def _chunk(system: System) -> int:
    """Steps of a chunk: as many as there are chunks; elsewhere than on a CPU, where a call costs more than it computes,
    16."""
    most = math.isqrt(system.length) if system.h.device.type == "cpu" else 16
    return min(max(most, 8), system.length)


def _one_pass(system: System, size: int, ends: Tensor | None) -> None:
    """Run all chunks from the ends (B, chunks, N) of those before them; from the first state where None."""
    rows, length = len(system.h), system.length
    count = -(-length // size)
    first = system.h[:, :1]
    begin = first.expand(-1, count, -1) if ends is None else torch.cat([first, ends], 1)[:, :count]
    h = system.structure.from_order(begin)
    for step in range(size):
        running = len(range(step, length, size))  # the last chunk may be shorter
        h = [x[:, :running].flatten(0, 1) for x in h]
        u = pytree.tree_unflatten([usable(x[:, step::size].flatten(0, 1)) for x in system.u], system.spec)
        h = pytree.tree_leaves(system.cell.step(u, system.structure.layout.tree(h)))
        h = [x.unflatten(0, (rows, running)) for x in h]
        system.guess[:, step::size] = system.structure.to_order(h, 2)
