"""A mixture of memories in the time of the text: each memory stands still while others are written to."""

from __future__ import annotations

from dataclasses import replace

import torch

from ritornello.lab.look.capture import Solved
from ritornello.layers.parts.routing import Route
from ritornello.typing import Tensor

__all__ = ["in_the_texts_time"]


def in_the_texts_time(solved: Solved, route: Route, length: int) -> Solved:
    """The recurrence of `MoM` as one whose heads are those of its memories, one memory's after the other's, the shared
    one's last.

    The steps (1, T · E) were sorted by memory. They go back to their times; at all others a memory keeps what it has
    (zeros: a write of strength 0 and a decay of e⁰) and is not read. Each reads with its weight in the sum of memories.
    """
    count = solved.state.shape[0]
    times, memories, weights = _places(route, length, count)

    def back(x: Tensor) -> Tensor:
        wide = x.new_zeros(length, count, *x.shape[2:])
        wide[times, memories] = x[0]
        return wide.flatten(1, 2).unsqueeze(0)

    weighed = solved.query * weights.view(1, -1, 1, 1).to(solved.query.dtype)
    recurrence = solved.recurrence.map(back)  # type: ignore[union-attr]
    state = solved.state.flatten(0, 1).unsqueeze(0)
    return replace(solved, recurrence=recurrence, query=back(weighed), state=state, packed=False)


def _places(route: Route, length: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Time, memory and weight of each sorted step."""
    chosen, weights = route.chosen, route.share.gather(1, route.chosen)
    weights = weights / weights.sum(-1, keepdim=True)
    if count > route.share.shape[-1]:  # and all steps go to the shared memory
        chosen = torch.cat([chosen, torch.full_like(chosen[:, :1], count - 1)], 1)
        weights = torch.cat([weights, torch.ones_like(weights[:, :1])], 1)
    order = chosen.flatten().argsort(stable=True)
    times = torch.arange(length, device=chosen.device).repeat_interleave(chosen.shape[1])
    return times[order], chosen.flatten()[order], weights.flatten()[order]
