"""What routers have in common: choices by groups, and decisions noted down for a loss that keeps the load even."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ritornello.layers.base import Call
from ritornello.typing import Tensor

__all__ = ["NOTED", "Route", "in_best_groups", "load_balance", "note"]

NOTED = "routes"
"""Where in a call's `carry` the list stands that routers write to, where somebody wants it."""


@dataclass(frozen=True, eq=False)
class Route:
    """The decisions of one router in one call.

    Args:
        kind: of the layer; only routers of one kind and with as many choices are averaged.
        share: (n, E) what the router gave each of the E experts or memories, summing to 1 over them.
        chosen: (n, k) those that each step went to.
        valid: (n,) which steps count; None: all of them.
    """

    kind: str
    share: Tensor
    chosen: Tensor
    valid: Tensor | None


def note(call: Call, kind: str, share: Tensor, chosen: Tensor) -> None:
    """Note a router's decisions (…, E) and (…, k), where the call wants them."""
    if (routes := call.carry.get(NOTED)) is None:
        return
    sequence, valid = call.sequence, None
    if sequence.cu_seqlens is not None:  # what is beyond the last packed sequence is padding
        valid = torch.arange(sequence.length, device=share.device) < sequence.cu_seqlens[-1]
    share, chosen = share.flatten(0, -2), chosen.flatten(0, -2)
    routes.append(Route(kind, share / share.sum(-1, keepdim=True), chosen, valid))


def load_balance(routes: Sequence[Route]) -> Tensor:
    """E Σ_e f_e P_e, f_e the number of times that a step went to e and P_e what the router gave it, both averaged over
    the steps of all `routes` of one kind: k where all loads are equal, up to E times that. Several kinds are added up.

    The gradient goes through P alone, and lowers it where the load is high.

    Source: Fedus et al. 2021, arXiv:2101.03961, eq. 4 to 6, pooled over the layers as in transformers.
    """
    total = routes[0].share.new_zeros(())
    for kind in dict.fromkeys((r.kind, r.share.shape[-1]) for r in routes):
        some = [r for r in routes if (r.kind, r.share.shape[-1]) == kind]
        share, went = torch.zeros_like(some[0].share[0]), torch.zeros_like(some[0].share[0])
        steps = total.new_zeros(())
        for route in some:
            counts = torch.ones_like(route.share[:, 0]) if route.valid is None else route.valid.to(route.share.dtype)
            share = share + counts @ route.share
            went = went.index_add(0, route.chosen.flatten(), counts.repeat_interleave(route.chosen.shape[-1]))
            steps = steps + counts.sum()
        total = total + kind[1] * (share * went).sum() / steps.clamp(min=1) ** 2
    return total


def in_best_groups(score: Tensor, groups: int, top: int) -> Tensor:
    """Scores (n, E), one after the other in `groups` of equal size, with −∞ outside of the `top` groups: those whose
    two largest scores have the largest sum."""
    grouped = score.unflatten(-1, (groups, -1))
    best = grouped.topk(min(2, grouped.shape[-1]), -1).values.sum(-1).topk(top, -1).indices
    left = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(-1, best, False)
    return grouped.masked_fill(left.unsqueeze(-1), float("-inf")).flatten(-2)
