"""What a layer's `mix` returned: whether it is what everything around it goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ritornello._written import describe
from ritornello.errors import InputError
from ritornello.typing import Tensor

if TYPE_CHECKING:
    from ritornello.layers.base import Layer, Leaf

__all__ = ["check_mixed", "fits"]

_known: WeakSet[Layer] = WeakSet()
"""Layers that were looked at."""


def check_mixed(layer: Layer, made: Any, x: Tensor, batch: int) -> None:
    """Refuse, once for each layer, a `mix` that returned no pair, outputs of another shape than x, or another state
    than `leaves()` say.

    Raises:
        InputError: with what was returned, and what is wanted.
    """
    if layer in _known:
        return
    leaves = layer.leaves()
    pair = isinstance(made, tuple | list) and len(made) == 2
    if not pair or getattr(made[0], "shape", None) != x.shape or not _is_state(made[1], x, batch, leaves):
        sizes = {
            n: f"({', '.join('any' if s is None else str(s) for s in (batch, *f.shape))})" for n, f in leaves.items()
        }
        told = ", ".join(f"{n!r}: {size} {leaves[n].dtype(x.dtype)}".replace("torch.", "") for n, size in sizes.items())
        raise InputError(
            f"mix(x, state, call) of {type(layer).__name__} returned {describe(made)}; wanted the pair y, state with y "
            f"of the shape of x, {tuple(x.shape)}, and state = {{{told}}}. Return both, or let leaves() say what mix "
            "returns."
        )
    _known.add(layer)


def _is_state(new: Any, x: Tensor, batch: int, leaves: Mapping[str, Leaf]) -> bool:
    """Whether `new` holds what `leaves` say. Autocast chooses the dtype of activations, and so of what keeps them."""
    return (
        isinstance(new, Mapping)
        and new.keys() == leaves.keys()
        and all(
            isinstance(t, Tensor)
            and fits(t.shape, (batch, *leaves[name].shape))
            and (leaves[name].holds == "input" or t.dtype == leaves[name].dtype(x.dtype))
            for name, t in new.items()
        )
    )


def fits(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape is the wanted one, in which None stands for any size."""
    return len(got) == len(wanted) and all(w is None or w == g for g, w in zip(got, wanted, strict=True))
