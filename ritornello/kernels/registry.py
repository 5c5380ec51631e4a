"""Which code runs an op: every backend declares its kernels here, by name; none is imported before its first use.

A kernel is a module with

    forward(*tensors, *attributes, save) -> (outputs, trace)
    backward(grads, trace, needs, *tensors, *attributes) -> one gradient or None for each tensor
    trace_size(*tensors, *attributes) -> int            # optional: bytes of `trace`
    limits(*tensors, *attributes) -> str | None         # optional: why it cannot run these, or None where it can

`tensors` and `attributes` come in the order of the op's schema, absent tensors as None. `trace` is a flat uint8 tensor
of what the forward pass kept for the backward pass, or None; it is asked for by `save`. The op has checked the
shapes and brought the dtypes together, and never calls a kernel with nothing to do (an empty batch, no time steps).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from ritornello.errors import BackendError, nearest
from ritornello.typing import FLOATING, Tensor

__all__ = [
    "BACKENDS",
    "Kernel",
    "Record",
    "active_method",
    "backend",
    "explain",
    "forced",
    "lookup",
    "record",
    "register",
    "resolve",
]

BACKENDS = ("triton", "native", "torch", "reference")
"""Every backend, the one that is preferred first."""


@dataclass(frozen=True)
class Kernel:
    """One op in one backend: where its code is, and what it can run; `missing` says what it lacks to run at all."""

    op: str
    backend: str
    target: str
    devices: frozenset[str] | None = None  # None: every device
    dtypes: frozenset[torch.dtype] = frozenset(FLOATING)
    missing: Callable[[], str | None] = field(default=lambda: None, compare=False)

    def never(self, device: str, dtype: torch.dtype) -> str | None:
        """Why this kernel runs nothing on this device and in this dtype, or None."""
        if self.devices is not None and device not in self.devices:
            return f"it runs on {', '.join(sorted(self.devices))}, the tensors are on {device}"
        return f"it does not take {dtype}" if dtype not in self.dtypes else self.missing()

    def refusal(self, lead: Tensor, arguments: Sequence[Any]) -> str | None:
        """Why this kernel cannot run the call, or None where it can."""
        reason = self.never(lead.device.type, lead.dtype)
        if reason is not None:
            return reason
        limits = getattr(self.load(), "limits", None)
        return None if limits is None else limits(*arguments)

    def load(self) -> Any:
        """The kernel's module, imported on first use."""
        module = _modules.get(self.target)
        if module is None:
            module = _modules[self.target] = importlib.import_module(self.target)
        return module


_modules: dict[str, Any] = {}
_kernels: dict[tuple[str, str], Kernel] = {}
_candidates: dict[tuple[str, str, torch.dtype], list[Kernel]] = {}  # found once: every call of an op asks
_lock, _asked = threading.Lock(), []  # of `backend`: what is asked for, the last of which counts
_forced: str | None = None  # a plain global: torch.compile guards it, and could not see a context variable change


def register(kernel: Kernel) -> None:
    """Make `kernel` known. The last one registered for an op and a backend wins."""
    _kernels[kernel.op, kernel.backend] = kernel
    _candidates.clear()


def lookup(op: str, backend: str) -> Kernel:
    return _kernels[op, backend]


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run every op inside with the backend `name`: ``"reference"``, ``"torch"``, ``"native"`` or ``"triton"``.

    For tests and debugging; it holds for every thread of the process. The choice is made at the forward pass and kept
    for its backward pass and recomputation.

    Raises:
        BackendError: no such backend; or, at the call of an op, one that cannot run it (those that can are named).
    """
    if name not in BACKENDS:
        raise BackendError(f"There is no backend {name!r}. {nearest(str(name), BACKENDS)}")
    global _forced
    asked = [name]
    with _lock:
        _asked.append(asked)
        _forced = name
    try:
        yield
    finally:
        with _lock:  # threads may leave in another order than they came
            _asked[:] = [a for a in _asked if a is not asked]
            _forced = _asked[-1][0] if _asked else None


def forced() -> str:
    """The backend that `backend` asks for, or an empty string."""
    return _forced or ""


def resolve(op: str, forced: str, arguments: Sequence[Any]) -> str:
    """The backend that runs this call: `forced`, or the first that can. The first argument tells device and dtype."""
    lead = arguments[0]
    if not forced:
        key = op, lead.device.type, lead.dtype
        for kernel in _candidates.get(key) or _find_candidates(*key):
            limits = getattr(kernel.load(), "limits", None)
            if limits is None or limits(*arguments) is None:
                return kernel.backend
        raise BackendError(f"No backend runs {op} on {lead.device.type} in {lead.dtype}.")
    kernel = _kernels.get((op, forced))
    reason = f"it has no kernel for {op}" if kernel is None else kernel.refusal(lead, arguments)
    if reason is not None:
        able = [n for n in BACKENDS if (op, n) in _kernels and _kernels[op, n].refusal(lead, arguments) is None]
        raise BackendError(f"Backend {forced!r} cannot run this call of {op}: {reason}. These can: {', '.join(able)}.")
    return forced


def _find_candidates(op: str, device: str, dtype: torch.dtype) -> list[Kernel]:
    """The kernels that run some calls of the op on that device and in that dtype, the one that is preferred first."""
    known = [_kernels[op, name] for name in BACKENDS if (op, name) in _kernels]
    found = _candidates[op, device, dtype] = [k for k in known if k.never(device, dtype) is None]
    return found


# ------------------------------------------------------------------------------------------------------ what was run


@dataclass(frozen=True)
class Record:
    """One line of `explain`: an op (or a cell's loop), the method that called it, and the backend that ran it."""

    op: str
    method: str
    backend: str

    def __str__(self) -> str:
        return f"{self.op}: {self.method} on {self.backend}" if self.method else f"{self.op}: on {self.backend}"


_logs: ContextVar[tuple[list[Record], ...]] = ContextVar("ritornello_explain", default=())
_method: ContextVar[str] = ContextVar("ritornello_method", default="")


@contextmanager
def explain() -> Iterator[list[Record]]:
    """List the op, method and backend of every call inside, in order of first use."""
    log: list[Record] = []
    token = _logs.set((*_logs.get(), log))
    try:
        yield log
    finally:
        _logs.reset(token)


@contextmanager
def active_method(name: str) -> Iterator[None]:
    """Note the method under which ops are called, for `explain`."""
    if torch.compiler.is_compiling() or not _logs.get():
        yield
        return
    token = _method.set(name)
    try:
        yield
    finally:
        _method.reset(token)


def explaining() -> bool:
    """Whether a log of `explain` is open."""
    return not torch.compiler.is_compiling() and bool(_logs.get())


def record(op: str, backend: str) -> None:
    """Add a line to every log of `explain` that is open."""
    if torch.compiler.is_compiling():
        return
    for log in _logs.get():
        log.append(Record(op, _method.get(), backend))
