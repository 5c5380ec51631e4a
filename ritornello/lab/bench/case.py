"""A row of the benchmark: what is measured against what, at which sizes, and what it must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from ritornello.errors import RitornelloError
from ritornello.kernels.registry import backend
from ritornello.typing import Tensor

__all__ = [
    "BOTH",
    "FORWARD",
    "MEMORY",
    "Case",
    "Comparison",
    "Row",
    "Side",
    "Work",
    "WrongNumbersError",
    "compare",
    "verify",
]

FORWARD, BOTH = "forward", "forward + backward"
MEMORY = 3.0
"""What an op may take at its peak in forward and backward, as a multiple of its inputs and outputs."""

Sizes = dict[str, int]


class WrongNumbersError(RitornelloError):
    """Ours computes something else than it should. It is not timed."""


@dataclass(frozen=True)
class Work:
    """What one call does: floating-point operations, bytes read and written at least, or tokens."""

    amount: float
    unit: str  # "FLOP", "B" or "token"


@dataclass(frozen=True)
class Comparison:
    """`got` should be `want`: the largest difference is at most `tolerance` times the largest magnitude of `want`."""

    what: str
    got: Tensor
    want: Tensor
    tolerance: float

    @property
    def error(self) -> float:
        """Infinite where shapes differ or a number is no number."""
        if self.got.shape != self.want.shape:
            return float("inf")
        got, want = self.got.detach().double(), self.want.detach().double()
        if not got.numel():
            return 0.0
        error = ((got - want).abs().max() / want.abs().max().clamp_min(1e-30)).item()
        return error if error == error else float("inf")


@dataclass
class Side:
    """Ours or the peer's: a differentiable call and the tensors it is differentiated by.

    Args:
        call: returns the output.
        leaves: of the gradient, in the same order on both sides.
        cotangent: of the output; None where it is a scalar.
        align: brings output and gradients of this side into the layout of the other.
    """

    call: Callable[[], Tensor]
    leaves: Sequence[Tensor] = ()
    cotangent: Tensor | None = None
    align: Callable[[Tensor], Tensor] = lambda x: x

    @torch.no_grad()
    def forward(self) -> Tensor:
        return self.call()

    def both(self) -> tuple[Tensor, ...]:
        o = self.call()
        return (o, *torch.autograd.grad(o, self.leaves, self.cotangent))

    def passes(self) -> dict[str, Callable[[], Any]]:
        return {FORWARD: self.forward, BOTH: self.both} if self.leaves else {FORWARD: self.forward}

    def numbers(self) -> list[Tensor]:
        """The output and every gradient, aligned."""
        results = self.both() if self.leaves else (self.forward(),)
        return [self.align(x.detach()) for x in results]


@dataclass
class Case:
    """A row at given sizes, ready to run: calls by pass, what must agree, and the work of a call."""

    ours: Mapping[str, Callable[[], Any]]
    peer: Mapping[str, Callable[[], Any]]
    check: Callable[[], Iterable[Comparison]]
    work: Mapping[str, Work] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: by which it is chosen; `op` as well.
        peer: the name that is printed.
        sizes: of the table; `quick` replaces some of them where only the function is tried.
        make: the case of some sizes; asked for the peer or not.
        targets: the ratio to reach, by pass.
        shares: the share of the ceiling to reach, by pass.
        memory: the peak of forward and backward that is allowed, as a multiple of inputs and outputs.
        draw: random sizes for the grid.
        backend: that ours runs on; the user's choice where None.
        limit: seconds after which the row is stopped from outside and run without its peer; None where nothing is
            known to hang.
    """

    name: str
    op: str
    peer: str
    sizes: Sizes
    make: Callable[[Sizes, bool], Case]
    quick: Sizes = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    memory: float | None = None
    draw: Callable[[Random], Sizes] | None = None
    backend: str | None = None
    limit: float | None = None
    long: bool = False


def compare(ours: Side, judge: Side | str, tolerance: float) -> Callable[[], list[Comparison]]:
    """Output and gradients of ours beside those of the peer, or of ours on the backend that `judge` names."""

    def check() -> list[Comparison]:
        got = ours.numbers()
        with backend(judge) if isinstance(judge, str) else nullcontext():
            want = (ours if isinstance(judge, str) else judge).numbers()
        names = ["output", *(f"gradient {i + 1}" for i in range(len(got) - 1))]
        return [Comparison(n, g, w, tolerance) for n, g, w in zip(names, got, want, strict=True)]

    return check


def verify(comparisons: Iterable[Comparison]) -> float:
    """The largest error.

    Raises:
        WrongNumbersError: one is beyond its tolerance.
    """
    worst = 0.0
    for c in comparisons:
        if not c.error <= c.tolerance:
            raise WrongNumbersError(f"{c.what} is off by {c.error:.1e} where {c.tolerance:.0e} is allowed")
        worst = max(worst, c.error)
    return worst
