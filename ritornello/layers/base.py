"""What every layer has in common: its state, masks, packing, direction and method, each handled here once.

A layer says what its state looks like (`leaves`) and how it mixes a sequence (`mix`), for rows of equal length or
packed ones; the rest follows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from ritornello import ops
from ritornello import state as states
from ritornello._run import run
from ritornello._written import check_methods, initialised
from ritornello.cell import Cell
from ritornello.errors import BackendError, InputError, StateError
from ritornello.kernels.tape import recording
from ritornello.layers.parts.mixed import check_mixed, fits
from ritornello.layers.parts.tags import working_weight
from ritornello.method import Auto, Fused, Method
from ritornello.sequence import Masked, Sequence
from ritornello.state import State
from ritornello.transition import Transition
from ritornello.typing import FLOATING, Tensor, Tree, accumulation_dtype

__all__ = ["About", "Call", "Layer", "Leaf", "Traits", "as_seen", "at_least", "demand_alike", "divide"]

DIRECTIONS = ("forward", "backward", "both")


@dataclass(frozen=True)
class About:
    """Where a layer comes from."""

    title: str
    paper: str
    family: str
    equation: str


@dataclass(frozen=True)
class Traits:
    """What a layer is like, for those who choose among many.

    Args:
        about: its paper, family and equation.
        causal: a step depends on itself and earlier ones only. A layer that was built with another direction than
            forward has other traits than its class: it is not causal.
        growth: how its state grows with the tokens read: ``"constant"``, ``"window"``, ``"log"`` or ``"linear"``.
        affine: its recurrence is affine in the state (or another associative map), so every method runs it.
        carry: it hands something to the same layer of later blocks.
        role: ``"mixer"`` or ``"feed_forward"``.
    """

    about: About
    causal: bool = True
    growth: str = "constant"
    affine: bool = True
    carry: bool = False
    role: str = "mixer"


@dataclass(frozen=True)
class Leaf:
    """One tensor of a layer's state: its shape without the batch (None: any size), and what kind of number it holds.

    Args:
        shape: e.g. ``(heads, key_size, value_size)``.
        holds: ``"sum"`` float32 or wider; ``"input"`` the activations' dtype; ``"index"`` int64.
        fill: what it holds before anything was read.
    """

    shape: tuple[int | None, ...]
    holds: str = "sum"
    fill: float = 0.0

    def __post_init__(self):
        if not isinstance(self.shape, tuple | list) or self.holds not in ("sum", "input", "index"):
            raise InputError(
                f"{self} describes no tensor of a state; wanted its sizes without the batch, in a tuple, and what it "
                "holds: 'sum', 'input' or 'index'. Write it as Leaf((64,), 'sum')."
            )

    def dtype(self, activations: torch.dtype) -> torch.dtype:
        if self.holds == "index":
            return torch.int64
        return accumulation_dtype(activations) if self.holds == "sum" else activations


@dataclass(frozen=True, eq=False)
class Call:
    """How this call of a layer is to be run: what `mix` is given beside the input and the state.

    Args:
        sequence: where the sequences begin and end in x.
        method: how to run the recurrence.
        donate: the state was given away and may be written in place.
        carry: what blocks of one model hand to each other (RWKV-7's first value, HGRN's bounds).
        entering: ``(layer, x, state, call) -> (y, state)``: who is to run the layers of a model, where somebody is.
    """

    sequence: Sequence
    method: Method = field(default_factory=Auto)
    donate: bool = False
    carry: dict[str, Any] = field(default_factory=dict)
    entering: Callable[..., tuple[Tensor, State]] | None = None

    def enter(self, layer: Any, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Run a layer of a model."""
        return layer.advance(x, state, self) if self.entering is None else self.entering(layer, x, state, self)

    def over(self, sequence: Sequence) -> Call:
        """The same call for other steps, where a layer repeats its own or sorts them."""
        return replace(self, sequence=sequence)

    def demand_fused(self, kind: str) -> None:
        """Refuse, for a layer that is no recurrence, a method that runs recurrences one way or another."""
        if not isinstance(self.method, Auto | Fused):
            raise BackendError(f"{self.method} cannot run {kind}, which is no recurrence. These can: Auto(), Fused().")

    def solve(self, transition: Transition, query: Tree, state: Tree) -> tuple[Tensor, Tree]:
        """The outputs and the last state of a transition."""
        return self.method.solve(transition, query, state, self.sequence.cu_seqlens)

    def run(self, cell: Cell, x: Tree, state: Tree) -> tuple[Any, Tree]:
        """The outputs and the last state of a cell."""
        return run(cell, x, state, self.method, self.sequence.cu_seqlens)[:2]

    def conv(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, activation: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The short causal convolution and its window."""
        return ops.causal_conv(x, weight, bias, activation, state, cu_seqlens=self.sequence.cu_seqlens)


class Layer(nn.Module):
    """What mixes a sequence: x (B, T, width) → y (B, T, width), and a State that continues it.

    A final class sets `kind`, `version` and `traits`, calls ``super().__init__(width)``, fills `self.spec` with the
    sizes that its state depends on, and writes `leaves` and `mix`.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    traits: Traits

    def __init_subclass__(cls, **options: Any):
        """Look at what a class writes. torch.compile counts how often it compiled a code object, eight times at most:
        every class has its own."""
        super().__init_subclass__(**options)
        check_methods(cls, Layer)
        initialised(cls, "super().__init__(width)")
        if "forward" not in vars(cls) and isinstance(cls.forward, FunctionType):
            cls.forward = _with_own_code(cls.forward, f"{cls.__qualname__}.forward")

    def __init__(self, width: int, *, direction: str = "forward"):
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise InputError(
                f"`width` of {self.kind} is {width!r}; wanted a positive integer, the size of x's last dimension."
            )
        if direction not in DIRECTIONS:
            raise InputError(f"`direction` of {self.kind} is {direction!r}; it takes 'forward', 'backward' or 'both'.")
        self.width = width
        self.direction = direction
        if direction != "forward":
            self.traits = replace(self.traits, causal=False)
        self.spec: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------ what a layer writes

    @abstractmethod
    def leaves(self) -> Mapping[str, Leaf]:
        """The tensors of the state, by name."""
        raise NotImplementedError(f"{type(self).__name__} has no leaves(): return a Leaf for each tensor of its state.")

    @abstractmethod
    def mix(self, x: Tensor, state: Mapping[str, Any], call: Call) -> tuple[Tensor, dict[str, Any]]:
        """The outputs and the new state, for x (B, T, width) with the sequences ``call.sequence``."""
        raise NotImplementedError(f"{type(self).__name__} has no mix(x, state, call): return y and the new state.")

    def canonical(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """The state in a form in which equal states have equal numbers; a layer whose state has a free scale or unused
        room says how."""
        return dict(leaves)

    def reserve(self, leaves: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """The state with memory for so many steps more; a layer whose state grows and which writes it in place says
        how."""
        return dict(leaves)

    # --------------------------------------------------------------------------------------------- what a user calls

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        method: Method | None = None,
        donate: bool = False,
    ) -> tuple[Tensor, State]:
        """Mix x and return the outputs with the state after the last step.

        Args:
            x: (B, T, width).
            state: what an earlier call returned, to continue it; None to start.
            mask: (B, T) bool. A step that is False is skipped, as if it were not there: its output and gradient are
                zero.
            cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is
                N.
            method: how to run the recurrence, e.g. ``rt.Sequential()``; ``rt.Auto()`` where None.
            donate: the state is given away and may be written in place.

        Returns:
            y (B, T, width) in the dtype of x, and the new State.

        Raises:
            InputError: shapes that do not fit, or `mask` with `cu_seqlens`.
            StateError: a state of another layer, version, size or batch.
            BackendError: a method that cannot run this layer.
        """
        self._check(x)
        x, call, masked = as_seen(x, mask, cu_seqlens, method, donate)
        y, new = self.advance(x, state, call)
        return (call.sequence.clear_unused(y) if masked is None else masked.unpack(y)), new

    if TYPE_CHECKING:
        # nn.Module's own is declared to return Any.
        def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, State]: ...

    def advance(self, x: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        """`forward` for what has been checked and packed: what models call, for many layers with one `call`.

        Outputs beyond the last packed sequence are finite, and mean nothing.
        """
        begun = state is None and not torch.compiler.is_compiling() and not recording()
        if state is None:
            state = self.initial_state(call.sequence.batch, like=x)
        else:
            if self.direction != "forward":
                raise StateError(
                    f"`state` was given to {self.kind} with direction {self.direction!r}, which reads whole sequences "
                    "from their ends. Pass None, or build the layer with direction 'forward'."
                )
            states.check(state, self.kind, self.version, self.spec, call.sequence.batch)
            if not torch.compiler.is_compiling() and not recording():  # which look at no numbers
                state = self._taken(state, x, call.sequence.batch)
        forward = self.direction == "forward"
        made = self.mix(x if forward else call.sequence.reverse(x), state.leaves, call)
        if begun:
            check_mixed(self, made, x, call.sequence.batch)
        y, leaves = made
        if forward:
            return y, State(self.kind, self.version, self.spec, leaves)
        y = call.sequence.reverse(y)
        if self.direction == "both":
            ahead, _ = self.mix(x, self.initial_state(call.sequence.batch, like=x).leaves, call)
            y = y + ahead
        return y, State(self.kind, self.version, self.spec, leaves)

    def initial_state(self, batch: int, like: Tensor | None = None) -> State:
        """The state before anything was read, for `batch` sequences; `like` tells device and dtype (the weights do
        where None)."""
        if like is None:
            like = working_weight(self)
            like = torch.empty(0) if like is None else like
        leaves = self.leaves()
        if not isinstance(leaves, Mapping) or any(not isinstance(leaf, Leaf) for leaf in leaves.values()):
            raise InputError(
                f"leaves() of {type(self).__name__} returned {leaves!r}; wanted a Leaf for each tensor of the state, "
                "by name. Return a dict such as {'h': Leaf((64,))}."
            )
        tensors = {
            name: like.new_full((batch, *(s or 0 for s in leaf.shape)), leaf.fill, dtype=leaf.dtype(like.dtype))
            for name, leaf in leaves.items()
        }
        return State(self.kind, self.version, self.spec, tensors)

    @cached_property
    def _leaves(self) -> Mapping[str, Leaf]:
        return self.leaves()

    def _taken(self, state: State, x: Tensor, batch: int) -> State:
        """A state of this layer, its sums in the dtype that x's have. Leaves that this layer's states never have, of a
        state that somebody made or changed, are refused."""
        cast = {}
        for name, leaf in self._leaves.items():
            t = state.leaves.get(name)
            if not isinstance(t, torch.Tensor) or not fits(t.shape, (batch, *leaf.shape)):
                wanted = ", ".join("any" if size is None else str(size) for size in (batch, *leaf.shape))
                got = tuple(t.shape) if isinstance(t, torch.Tensor) else f"a {type(t).__name__}"
                raise StateError(
                    f"`state` of {self.kind} holds {'no' if t is None else got} {name!r}; wanted a tensor of shape "
                    f"({wanted}). Pass the state that this layer returned, or None to start."
                )
            if t.device != x.device:
                raise StateError(
                    f"`state` of {self.kind} is on {t.device}, and `x` on {x.device}. Move it: "
                    f"rt.state.to(state, {str(x.device)!r})."
                )
            if leaf.holds == "sum" and t.dtype != (wide := accumulation_dtype(x.dtype)):
                cast[name] = t.to(wide)
        return replace(state, leaves={**state.leaves, **cast}) if cast else state

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in {"width": self.width, **self.spec}.items())

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, torch.Tensor) or x.dim() != 3 or x.shape[-1] != self.width:
            got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise InputError(f"`x` of {self.kind} is {got}; wanted (B, T, {self.width}), this layer's width last.")
        if x.layout is not torch.strided:
            raise InputError(f"`x` of {self.kind} is a tensor of layout {x.layout}; wanted a dense one: x.to_dense().")
        if x.dtype not in FLOATING:
            raise InputError(f"`x` of {self.kind} is {x.dtype}; wanted a floating dtype. Embed integers first.")
        demand_alike(self.kind, x, None if torch.compiler.is_compiling() else working_weight(self))


def demand_alike(kind: str, x: Tensor, weight: Tensor | None) -> None:
    """Refuse x of another device or dtype than the weights that read it; autocast mixes dtypes, but for float64."""
    if weight is None or (x.dtype == weight.dtype and x.device == weight.device):
        return
    if x.device != weight.device:
        if weight.device.type != "meta":  # whose memory whoever put it there will bring
            raise InputError(
                f"`x` of {kind} is on {x.device}, and its weights are on {weight.device}. Move one of them: "
                f"x.to({str(weight.device)!r}), or the weights .to({str(x.device)!r})."
            )
    elif torch.float64 in (x.dtype, weight.dtype) or not torch.is_autocast_enabled(x.device.type):
        raise InputError(
            f"`x` of {kind} is {x.dtype}, and its weights are {weight.dtype}. Turn one of them: x.to({weight.dtype}), "
            f"or the weights .to({x.dtype}). torch.autocast mixes float32 with half precision."
        )


def as_seen(
    x: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, method: Method | None, donate: bool
) -> tuple[Tensor, Call, Masked | None]:
    """x (B, T, ...) in the form that layers see, packed where there is a mask; the call for it; and the mask's packing.

    Raises:
        InputError: as of `Layer.forward`.
    """
    method = Auto() if method is None else method
    if not isinstance(method, Method):
        raise InputError(f"`method` is {method!r}; wanted a value like rt.Fused() or rt.Chunked(64), or None.")
    if mask is None:
        sequence = Sequence.of(x, cu_seqlens)
        return sequence.clear_unused(x), Call(sequence, method, donate), None
    if cu_seqlens is not None:
        raise InputError(
            "`mask` and `cu_seqlens` were both given. Packed sequences have no padding to mask: give one of them."
        )
    masked = Masked.of(x, mask)
    return masked.pack(x), Call(masked.sequence, method, donate), masked


def _with_own_code(function: Any, qualname: str) -> Any:
    """The same function, of a code object that no other has."""
    code = function.__code__.replace(co_qualname=qualname)
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    own.__kwdefaults__ = function.__kwdefaults__
    return update_wrapper(own, function, updated=())


def at_least(least: int, kind: str, **sizes: int) -> None:
    """Refuse options of a layer of `kind`, given by their names, that are smaller."""
    for name, size in sizes.items():
        if size < least:
            raise InputError(f"`{name}` of {kind} is {size}; wanted at least {least}.")


def divide(kind: str, whole: str, size: int, parts: str, count: int) -> int:
    """size / count, where it is whole; else a sentence that offers counts that work."""
    at_least(1, kind, **{whole: size})
    if count < 1 or size % count:
        good = [n for n in range(1, min(size, 64) + 1) if size % n == 0]
        near = sorted(good, key=lambda n: abs(n - count))[:4]
        raise InputError(
            f"`{parts}` of {kind} is {count}, which does not divide `{whole}` = {size}. "
            f"Near values that do: {', '.join(map(str, sorted(near)))}."
        )
    return size // count
