"""A layer on the bench: how it is made, what it is given, and how two of its answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ritornello import state as states
from ritornello.errors import InputError
from ritornello.layers.base import Layer
from ritornello.state import State
from ritornello.testing.tolerance import excess, tolerance
from ritornello.typing import Tensor

__all__ = ["Subject", "close", "gradients", "same_state"]


@dataclass(frozen=True)
class Subject:
    """A layer to be examined.

    Args:
        make: returns a new layer, e.g. ``lambda: MyLayer(32)``; its weights are drawn under a fixed seed.
        oracle: ``(layer, x) -> y``, written independently of the layer; None where there is none (our own layers must
            have one).
    """

    make: Callable[[], Layer]
    oracle: Callable[[Layer, Tensor], Tensor] | None = None

    def layer(self, dtype: torch.dtype = torch.float64) -> Layer:
        """The layer, its every weight moved off its initial value, so that no zero hides a term."""
        torch.manual_seed(7)
        layer = self.make()
        if not isinstance(layer, Layer):
            raise InputError(f"`make` returned a {type(layer).__name__}; wanted a ritornello.layers.Layer.")
        if layer.direction != "forward":
            raise InputError(
                f"`make` returned a {layer.kind} of direction {layer.direction!r}, whose state nothing goes on from: "
                "most contracts compare nothing. Make it with direction 'forward'; others are tried on that one."
            )
        layer.to(dtype)
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.05 * torch.randn_like(p))
        return layer

    @staticmethod
    def input(layer: Layer, batch: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, length, layer.width, generator=generator, dtype=torch.float64).to(dtype)


def close(got: Tensor, want: Tensor, dtype: torch.dtype, what: str) -> None:
    """Fail where `got` is not `want` within the table's tolerance for layers."""
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, wanted {tuple(want.shape)}"
    error = excess(got, want)
    assert error <= tolerance("layer", dtype), f"{what}: off by {error:.2e}, allowed {tolerance('layer', dtype):.0e}"


def same_state(layer: Layer, got: State, want: State, dtype: torch.dtype, what: str) -> None:
    """Fail where two states of `layer` differ, in the form in which equal states have equal numbers."""
    assert (got.kind, got.version, dict(got.spec)) == (want.kind, want.version, dict(want.spec)), what
    mine, theirs = layer.canonical(got.leaves), layer.canonical(want.leaves)
    assert mine.keys() == theirs.keys(), f"{what}: leaves {sorted(mine)}, wanted {sorted(theirs)}"
    for name in theirs:
        close(mine[name], theirs[name], dtype, f"{what}, state {name!r}")


def gradients(layer: Layer, y: Tensor, state: State, x: Tensor, start: State | None) -> dict[str, Tensor]:
    """The gradients of a fixed functional of outputs and state: of x, of every parameter, and of the starting state."""

    def weighed(t: Tensor) -> Tensor:
        weights = torch.linspace(-1.0, 1.0, max(t.numel(), 1), dtype=torch.float64)[: t.numel()].view(t.shape)
        return (t.double() * weights).sum()

    final = [t for t in layer.canonical(state.leaves).values() if t.is_floating_point() and t.requires_grad]
    total = weighed(y) + sum(weighed(t) for t in final)
    named: dict[str, Any] = {"x": x, **{n: p for n, p in layer.named_parameters() if p.requires_grad}}
    if start is not None:
        named |= {f"state {i}": t for i, t in enumerate(start.tensors()) if t.requires_grad}
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(named.items(), found, strict=True)}


def leaf_state(state: State) -> State:
    """A copy whose floating tensors are leaves that want a gradient."""
    return states.map_tensors(
        lambda t: t.detach().clone().requires_grad_() if t.is_floating_point() else t.clone(), state
    )
