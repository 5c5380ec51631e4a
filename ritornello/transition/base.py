"""What a transition is: one step's map of the state, held for all times at once, with an algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import torch

from ritornello.sequence import Sequence
from ritornello.typing import Tensor, Tree, accumulated

__all__ = ["Transition", "prefixes", "whole"]


class Transition(ABC):
    """A map of the state for each time: tensors with leading (B, T), or with leading (B,) for one step.

    A final class is a frozen dataclass of tensors. `over_time` names those that have a time, each with the value (or a
    function of the tensor that gives it) that makes a step the identity: so rows are padded without a special case.
    """

    over_time: ClassVar[dict[str, float | Callable[[Tensor], Tensor]]]
    op: ClassVar[str | None] = None
    """The op that runs all times in one call, where there is one."""

    # ------------------------------------------------------------------------------------------------- the algebra

    @abstractmethod
    def apply(self, h: Tree) -> Tree:
        """One step: the state after it. Leading dimensions must agree."""

    @abstractmethod
    def after(self, earlier: Any) -> Transition:
        """The composition self ∘ earlier: first `earlier`, then self."""

    @abstractmethod
    def summary(self) -> Transition:
        """All times as one map with leading (B,): what a device tells the next one about its segment."""

    @abstractmethod
    def start(self) -> Tree:
        """The state before anything was read, with leading (B,): zeros, in float32 or wider."""

    @abstractmethod
    def scan_read(self, query: Tree, h0: Tree, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tree]:
        """The outputs at all times and the last state; matrix states are never stored over time."""

    def scan(self, h0: Tree, cu_seqlens: Tensor | None = None) -> tuple[Tree, Tree]:
        """A pair: the states after every step, with leading (B, T), and the last one, with leading (B,) or, packed, one
        for each sequence: h0 where that has no steps. Only where the state is a vector and itself the output.

        Raises:
            TypeError: of every other transition; `scan_read` reads it.
        """
        raise TypeError(
            f"{type(self).__name__} never stores its states over time. Read them with scan_read(query, h0)."
        )

    def read(self, query: Tree, before: Tree, after: Tree) -> Tensor:
        """One step's output, from the state before and after it; the state itself unless a class says otherwise."""
        return after

    # --------------------------------------------------------------------------------------- the same for every class

    def __repr__(self) -> str:
        held = {n: t for n, t in vars(self).items() if t is not None}
        told = (f"{n}: {tuple(t.shape)}" if isinstance(t, torch.Tensor) else f"{n}={t}" for n, t in held.items())
        return f"{type(self).__name__}({', '.join(told)})"

    @property
    def lead(self) -> Tensor:
        """The first tensor over time: it tells device and dtype."""
        return next(t for n in self.over_time if (t := getattr(self, n)) is not None)

    @property
    def batch(self) -> int:
        return self.lead.shape[0]

    @property
    def length(self) -> int:
        return self.lead.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with `function` of every tensor over time."""
        changed = {n: function(t) for n in self.over_time if (t := getattr(self, n)) is not None}
        return replace(self, **changed)  # type: ignore[type-var]

    def as_element(self) -> Transition:
        """The same steps in the form in which their compositions come; this one unless a class says otherwise."""
        return self

    def wide(self) -> Self:
        """The same with every tensor in float32 or wider, for algebra outside an op."""
        changed = {
            f.name: accumulated(t)
            for f in fields(self)  # type: ignore[arg-type]
            if isinstance(t := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def unbind(self) -> list[Self]:
        """One transition for each time."""
        times = {n: t.unbind(1) for n in self.over_time if (t := getattr(self, n)) is not None}
        return [
            replace(self, **dict(zip(times, now, strict=True)))  # type: ignore[type-var]
            for now in zip(*times.values(), strict=True)
        ]

    def masked(self, valid: Tensor) -> Self:
        """The same with the identity where `valid` (B, T) is False."""
        changed = {}
        for name, neutral in self.over_time.items():
            if (t := getattr(self, name)) is not None:
                value = neutral(t) if callable(neutral) else neutral
                changed[name] = torch.where(valid.view(*valid.shape, *(1,) * (t.dim() - 2)), t, value)
        return replace(self, **changed)  # type: ignore[type-var]

    def padded(self, sequence: Sequence) -> Self:
        """From packed sequences to rows, filled up with identity steps."""
        return self.map(sequence.pad).masked(sequence.valid(self.lead.device))


def prefixes(t: Transition) -> Transition:
    """The composition of all times up to each, by a work-efficient tree of depth 2·log₂ T.

    Only for classes that are closed under composition. Blelloch 1990, "Prefix sums and their applications".
    """
    length = t.length
    if length <= 1:
        return t
    even, odd = t.map(lambda x: x[:, 0::2]), t.map(lambda x: x[:, 1::2])
    at_odd = prefixes(odd.after(even.map(lambda x: x[:, : length // 2])))
    if length > 2:
        before = at_odd.map(lambda x: x[:, : (length - 1) // 2])
        at_even = even.map(lambda x: x[:, 1:]).after(before)
        at_even = _merge(lambda first, rest: torch.cat([first[:, :1], rest], 1), even, at_even)
    else:
        at_even = even
    return _merge(_interleave, at_even, at_odd)


def whole(t: Transition) -> Any:
    """The composition of all times, with leading (B,): the identity of no time. Only where `prefixes` is."""
    if t.length == 0:
        one = t.map(lambda x: x.new_zeros(x.shape[0], 1, *x.shape[2:]))
        t = one.masked(torch.zeros(t.batch, 1, dtype=torch.bool, device=t.lead.device))
    return prefixes(t).map(lambda x: x[:, -1])


def _merge(function: Callable[[Tensor, Tensor], Tensor], one: Transition, two: Transition) -> Transition:
    names = [n for n in one.over_time if getattr(one, n) is not None]
    return replace(one, **{n: function(getattr(one, n), getattr(two, n)) for n in names})  # type: ignore[type-var]


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    if even.shape[1] == odd.shape[1]:
        return torch.stack([even, odd], 2).flatten(1, 2)
    pairs = torch.stack([even[:, :-1], odd], 2).flatten(1, 2)
    return torch.cat([pairs, even[:, -1:]], 1)
