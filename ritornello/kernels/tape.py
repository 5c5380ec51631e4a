"""Calls recorded once and played again on the same tensors: a decode step without the Python between its calls.

A step of a small model is a hundred calls of a few microseconds each, and most of its time goes into finding them. A
tape holds them as they arrive: the operators of PyTorch with the memory of their results, and the functions of the
native library with their addresses. What only looks at memory (views), or only takes it, is not repeated; nor, after
`fold`, what comes of constants alone.

    tape = Tape()
    with tape.record():
        y = layer(x)                # x, y and all between stay where they are
    x.copy_(another)
    tape.play()                     # y is that of another

A tape is right as long as the calls do not depend on the numbers. Whatever hands numbers to Python, draws random ones
or has a result whose size depends on them is refused while recording, with `NotRecordable`.
"""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ritornello.typing import Tensor

__all__ = ["NotRecordable", "Tape", "recording"]

UNTOUCHED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
"""Operators that take memory and write nothing to it."""

FILLED = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"}
"""Operators whose result does not depend on the numbers of the tensor they are given."""

TO_PYTHON = {
    getattr(torch.Tensor, name)
    for name in ("tolist", "numpy", "item", "__bool__", "__int__", "__float__", "__index__", "__array__")
}


class NotRecordable(Exception):
    """What was to be recorded depends on numbers that a tape does not see."""


class Tape:
    """A list of calls on tensors that stay where they are."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], Any]] = []
        self._facts: list[_Facts] = []  # of each call
        self._kept: list[Any] = []  # the memory behind the addresses
        self._thread = 0

    def __len__(self) -> int:
        return len(self._calls)

    def play(self) -> None:
        """All calls again, in their order.

        In a loop without bytecode of its own: a signal's handler runs between two calls only where one is Python.
        """
        deque(map(methodcaller("__call__"), self._calls), maxlen=0)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Add what this thread calls inside."""
        global current
        before, current = current, self
        self._thread = threading.get_ident()
        try:
            with _ToPython(), _Operators(self):
                yield
        finally:
            current = before

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Inside `record`: leave out what is called here."""
        global current
        before, current = current, None
        try:
            with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
                yield
        finally:
            current = before

    def fold(self, constants: Iterable[Tensor]) -> None:
        """Leave out what depends on `constants` alone: its result stays as it is, as long as they do.

        Not where something else may write to that result: an operator in place, or a native function, of which only
        the addresses are known.
        """
        addresses = sorted(a for facts in self._facts for a in facts.addresses)
        touched = {s for facts in self._facts for s in facts.writes}
        same = {_storage(t) for t in constants}
        kept = []
        for call, facts in zip(self._calls, self._facts, strict=True):
            makes = {_storage(t): t.untyped_storage() for t in facts.makes}
            if (
                makes
                and facts.reads <= same
                and not any(s in touched or _points_into(addresses, memory) for s, memory in makes.items())
            ):
                same |= makes.keys()
            else:
                kept.append((call, facts))
        self._calls, self._facts = [c for c, _ in kept], [f for _, f in kept]

    def add(self, call: Callable[[], Any]) -> None:
        """Play `call` here, whatever it does."""
        self._append(call, _Facts())

    def _append(self, call: Callable[[], Any], facts: _Facts) -> None:
        self._calls.append(call)
        self._facts.append(facts)

    def native(self, function: Callable[[bytes], Any], fields: bytes) -> None:
        """A function of the native library, and the addresses it is given."""
        if self._thread == threading.get_ident():
            words = struct.unpack(f"{len(fields) // 8}Q", fields)
            self._append(partial(function, fields), _Facts(addresses=words))

    def cut(self, length: int) -> None:
        """Forget the calls from the `length`-th on."""
        del self._calls[length:], self._facts[length:]

    # -------------------------------------------------------------------------------------------- PyTorch's operators

    def operator(self, function: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
        """Add an operator that has just run, with what it returned."""
        self._kept.append((args, kwargs, result))
        name = function.overloadpacket.__name__
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        reads = {_storage(t) for t in given}
        if any(a.alias_info is not None and a.alias_info.is_write for a in function._schema.arguments):
            self._append(partial(_bound(name, function), *args, **kwargs), _Facts(reads, writes=reads))
            return
        fresh = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor) and _storage(t) not in reads]
        if not fresh or name in UNTOUCHED:
            return
        if not given or name in FILLED:
            for t in fresh:
                self._append(partial(t.copy_, t.clone()), _Facts(makes=(t,)))
            return
        self._append(_again(name, function, args, kwargs, result), _Facts(reads, tuple(fresh)))


@dataclass(frozen=True)
class _Facts:
    """Which memory a call reads, makes and changes, by its storages; of a native one, all that may be an address."""

    reads: set[int] = field(default_factory=set)
    makes: tuple[Tensor, ...] = ()
    writes: set[int] = field(default_factory=set)
    addresses: tuple[int, ...] = ()


current: Tape | None = None
"""The tape that records, for the native library, which the dispatcher does not see."""


def recording() -> bool:
    """Whether this thread's calls are being recorded."""
    return current is not None and current._thread == threading.get_ident()


def refuse(function: Any, args: tuple) -> None:
    """Raise where an operator hands numbers to Python or sizes its result by them."""
    tags = function.tags
    sized = torch.Tag.dynamic_output_shape in tags
    if sized and function.overloadpacket is torch.ops.aten.index:  # by numbers only where it is given a mask
        sized = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if sized or torch.Tag.data_dependent_output in tags:
        raise NotRecordable(f"{function} depends on the numbers")


class _Operators(TorchDispatchMode):
    """Hands every operator to the tape once it has run."""

    def __init__(self, tape: Tape):
        super().__init__()
        self.tape = tape

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would import the whole compiler, seconds, at the first operator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        refuse(func, args)
        may_draw = torch.Tag.nondeterministic_seeded in func.tags  # attention as well, which does without dropout
        before = torch.get_rng_state() if may_draw else None
        result = func(*args, **kwargs)
        if before is not None and not torch.equal(before, torch.get_rng_state()):
            raise NotRecordable(f"{func} draws random numbers")
        self.tape.operator(func, args, kwargs, result)
        return result


class _ToPython(TorchFunctionMode):
    """Refuses the methods of a tensor that read its memory past the dispatcher."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in TO_PYTHON:
            raise NotRecordable(f"{func.__name__} hands numbers to Python")
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _points_into(addresses: list[int], memory: torch.UntypedStorage) -> bool:
    """Whether one of the sorted `addresses` lies in it."""
    start = memory.data_ptr()
    return bisect_left(addresses, start) < bisect_left(addresses, start + memory.nbytes())


def _bound(name: str, function: Any) -> Callable[..., Any]:
    """The operator as the method of a tensor, which is found sooner than the overload, where there is one."""
    method = getattr(torch.Tensor, name, None)
    return function if method is None or not name.endswith("_") or name.startswith("_") else method


def _again(name: str, function: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> Callable[[], Any]:
    """The quickest call that gives the same bits in the same memory."""
    if isinstance(result, torch.Tensor):
        expected = result.clone()
        for call in _writers(name, function, args, kwargs, result):
            result.zero_()
            try:
                call()
            except (TypeError, RuntimeError):
                continue
            if _same(result, expected):
                return call
        result.copy_(expected)
    if isinstance(result, torch.Tensor) and name == "_to_copy":
        return partial(result.copy_, args[0])
    places = [(i, t) for i, t in enumerate(pytree.tree_leaves(result)) if isinstance(t, torch.Tensor)]
    return partial(_copied, function, args, kwargs, places)


def _writers(name: str, function: Any, args: tuple, kwargs: dict[str, Any], result: Tensor) -> Iterator[Callable]:
    """Calls that may write the same result, the quickest first."""
    if name == "embedding" and args[1].is_contiguous():  # whose `out` is a copy of a lookup
        weight, ids = args[:2]
        yield partial(torch.index_select, weight, 0, ids.view(-1), out=result.view(-1, weight.shape[1]))
    packet = function.overloadpacket
    candidates = [getattr(module, name) for module in (torch, torch._C._nn) if hasattr(module, name)]  # type: ignore
    candidates += [getattr(packet, overload) for overload in packet.overloads() if "out" in overload]
    yield from (partial(candidate, *args, **kwargs, out=result) for candidate in candidates)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bits(a), _bits(b))


def _bits(tensor: Tensor) -> Tensor:
    """The bytes, so that NaN equals NaN."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def _copied(function: Any, args: tuple, kwargs: dict[str, Any], places: list[tuple[int, Tensor]]) -> None:
    """Call it, and copy its results, flat, to their places."""
    result = function(*args, **kwargs)
    flat = (result,) if isinstance(result, torch.Tensor) else pytree.tree_leaves(result)
    for i, place in places:
        place.copy_(flat[i])
