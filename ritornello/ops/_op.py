"""What every op has in common: its schema, its fake kernel, its autograd, and the call of the chosen kernel.

An op is two operators of ``torch.library``, ``ritornello::NAME`` and ``ritornello::NAME_backward``. Both carry the name
of the backend as an argument, so the backward pass and a recomputation use the backend of the forward pass. In a
compiled graph an empty name stands for the first backend that can, found when the graph runs.

The reference backend is plain differentiable PyTorch, and is called as such outside a compiled graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.autograd import forward_ad

from ritornello.errors import BackendError, InputError
from ritornello.kernels import registry
from ritornello.kernels.recompute import recomputed
from ritornello.kernels.tape import recording
from ritornello.sequence import check_order
from ritornello.typing import Tensor

__all__ = ["Op", "transforms"]

_library = torch.library.Library("ritornello", "DEF")

Shapes = list[tuple[Sequence[int], torch.dtype]]


class Op:
    """One recurrence on tensors.

    Args:
        name: the operator's name.
        tensors: its tensor arguments in order; a trailing ``?`` marks those that may be None. The first one tells
            device and dtype, by which a kernel is chosen, and its second dimension is time.
        attributes: its other arguments and their types in the operator's schema, e.g. ``{"scale": "float"}``.
        outputs: how many tensors it returns: the one over time, and those of the final state.
        shapes: ``(*tensors, *attributes) -> [(shape, dtype), ...]`` of what it returns.
        states: for each tensor of the final state, the argument that holds it at the start.
        fixed: indices of outputs that are not differentiated.
    """

    def __init__(
        self,
        name: str,
        tensors: str,
        attributes: dict[str, str],
        *,
        shapes: Callable[..., Shapes],
        states: Sequence[str] = ("state",),
        fixed: Sequence[int] = (),
    ):
        self.name, self.shapes, self.fixed = name, shapes, tuple(fixed)
        marked = tensors.split()
        self.tensors = [t.rstrip("?") for t in marked]
        self.arity = len(marked)
        self.states = [self.tensors.index(s) for s in states]
        self.bounds = self.tensors.index("cu_seqlens") if "cu_seqlens" in self.tensors else None
        declared = [f"Tensor{'?' * t.endswith('?')} {t.rstrip('?')}" for t in marked]
        declared += [f"{kind} {a}" for a, kind in attributes.items()]
        arguments = ", ".join(declared)
        returned = ", ".join(["Tensor"] * (2 + len(states)))
        backward = f"{name}_backward"
        _library.define(f"{name}({arguments}, str backend, bool save) -> ({returned})")
        kept = "Tensor?[] grads, Tensor trace, bool[] needs"
        _library.define(f"{backward}({kept}, {arguments}, str backend) -> Tensor[]")
        _library.impl(name, self._operator, "CompositeExplicitAutograd")
        _library.impl(backward, self._backward_operator, "CompositeExplicitAutograd")
        torch.library.register_fake(f"ritornello::{name}", self._fake_forward, lib=_library)
        torch.library.register_fake(f"ritornello::{backward}", self._fake_backward, lib=_library)
        torch.library.register_autograd(
            f"ritornello::{name}", self._autograd, setup_context=self._setup_context, lib=_library
        )
        self._call = getattr(torch.ops.ritornello, name).default
        self._call_backward = getattr(torch.ops.ritornello, backward).default

    def __call__(self, *arguments: Any) -> Any:
        """Run the op on tensors and attributes in the order of the schema: the output, then the final state.

        Nearly always that is the kernel itself, as a `_Plain` where a gradient is wanted. Where somebody watches (a
        compiler, a dispatch mode, vmap) it is the operator, and under torch.func.grad a `_Transformed` around it.
        """
        save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in arguments[: self.arity])
        if torch.compiler.is_compiling():  # which cannot look into the choice: it is left to the operator
            return self._call(*arguments, registry.forced(), save)[:-1]
        self._check_devices(arguments)
        around = transforms()
        # Kernels have no forward derivative, and no batches of gradients.
        if around and around not in ({_GRAD}, {_VMAP}):
            registry.record(self.name, "reference")
            return self._run("reference", arguments, False)[0]
        backend = registry.resolve(self.name, registry.forced(), arguments)
        registry.record(self.name, backend)
        # Without a step the reference backend has nothing to differentiate; the operator passes the state on.
        direct = backend == "reference" and arguments[0].numel() > 0
        plain = _is_plain(arguments[0])
        if direct or (plain and not save):
            return self._run(backend, arguments, False)[0]
        if plain:
            return _Plain.apply(*arguments, backend, True, self)
        if around == {_GRAD}:
            return _Transformed.apply(*arguments, backend, True, self)[:-1]
        return self._call(*arguments, backend, save)[:-1]

    def _check_devices(self, arguments: Sequence[Any]) -> None:
        """A kernel reads addresses: one on another device is no memory of its own."""
        device = arguments[0].device
        for place in range(1, self.arity):
            t = arguments[place]
            if t is not None and t.device != device:
                raise InputError(
                    f"`{self.tensors[place]}` of {self.name} is on {t.device}, and `{self.tensors[0]}` on {device}. "
                    "Move all tensors to one device."
                )

    # ------------------------------------------------------------------------------------------- what the operators do

    def _kernel(self, backend: str, arguments: Sequence[Any]) -> Any:
        return registry.lookup(self.name, backend or registry.resolve(self.name, "", arguments)).load()

    def _run(self, backend: str, arguments: Sequence[Any], save: bool) -> tuple[tuple[Tensor, ...], Tensor | None]:
        lead = arguments[0]
        if lead.numel() == 0:
            return self._nothing_to_do(arguments), None
        with _without_autocast(lead.device.type):
            return self._kernel(backend, arguments).forward(*arguments, save)

    def _operator(self, *given: Any) -> tuple[Tensor, ...]:
        """What the dispatcher calls. Of a compiled graph's tensors nobody has seen devices and bounds before."""
        self._check_devices(given)
        bounds = None if self.bounds is None else given[self.bounds]
        if bounds is not None and bounds.device.type == "cpu":
            check_order(bounds, given[0].shape[1], f"`cu_seqlens` of {self.name}")
        return self._forward(*given)

    def _forward(self, *given: Any) -> tuple[Tensor, ...]:
        *arguments, backend, save = given
        outputs, trace = self._run(backend, arguments, save)
        if trace is None:
            trace = arguments[0].new_empty(0, dtype=torch.uint8)
        return *(o.contiguous() for o in outputs), trace  # contiguous, as the fake kernel promises

    def _backward_operator(self, grads, trace, needs, lead, *more):
        """What the dispatcher calls: an operator cannot return None among its tensors."""
        found = self._backward(grads, trace, needs, lead, *more)
        return [lead.new_empty(0) if grad is None else grad for grad in found]

    def _backward(self, grads, trace, needs, *arguments):
        """The gradients that are needed, and None for the other tensors."""
        *arguments, backend = arguments
        with _without_autocast(arguments[0].device.type):
            found = self._find_gradients(grads, trace, needs, arguments, backend)
        return [
            _gradient(tensor, grad) if need else None
            for need, grad, tensor in zip(needs, found, arguments, strict=False)
        ]

    def _find_gradients(self, grads, trace, needs, arguments, backend):
        if arguments[0].numel() == 0:
            return self._pass_through(grads)
        kernel = self._kernel(backend, arguments)
        if hasattr(kernel, "backward"):
            return kernel.backward(tuple(grads), trace, needs, *arguments)
        tensors, attributes = arguments[: self.arity], arguments[self.arity :]  # it is differentiable PyTorch
        return recomputed(lambda *t: kernel.forward(*t, *attributes, False)[0], tensors, needs, grads)

    def _nothing_to_do(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        """No batch or no time: an empty output, and the state as it came."""
        outputs = [arguments[0].new_zeros(shape, dtype=dtype) for shape, dtype in self.shapes(*arguments)]
        for index, place in enumerate(self.states, start=1):
            if arguments[place] is not None:
                outputs[index] = arguments[place].clone()
        return tuple(outputs)

    def _pass_through(self, grads):
        found = [None] * self.arity
        for index, place in enumerate(self.states, start=1):
            found[place] = None if grads[index] is None else grads[index].clone()
        return found

    def _fake_forward(self, *given: Any) -> tuple[Tensor, ...]:
        *arguments, backend, save = given
        lead = arguments[0]
        kernel = self._kernel(backend, arguments)
        size = kernel.trace_size(*arguments) if save and hasattr(kernel, "trace_size") else 0
        outputs = [lead.new_empty(shape, dtype=dtype) for shape, dtype in self.shapes(*arguments)]
        return *outputs, lead.new_empty(size, dtype=torch.uint8)

    def _fake_backward(self, grads, trace, needs, *arguments):
        lead = arguments[0]
        return [t.new_empty(t.shape) if n else lead.new_empty(0) for n, t in zip(needs, arguments, strict=False)]

    def _setup_context(self, ctx, inputs, output):
        *arguments, ctx.backend, _ = inputs
        ctx.attributes = arguments[self.arity :]
        ctx.save_for_backward(*arguments[: self.arity], output[-1])
        ctx.set_materialize_grads(False)
        if self.fixed:
            ctx.mark_non_differentiable(*(output[i] for i in self.fixed))

    def _autograd(self, ctx, *grads):
        return self._gradients(ctx, grads[:-1], self._call_backward)

    def _gradients(self, ctx, grads, call):
        """Of every input of the operator, by `call`: the backward operator, or what it does."""
        nothing = (None,) * (len(ctx.attributes) + 2)
        if all(g is None for g in grads):
            return (None,) * self.arity + nothing
        *tensors, trace = ctx.saved_tensors
        needs = ctx.needs_input_grad[: self.arity]
        found = call(grads, trace, needs, *tensors, *ctx.attributes, ctx.backend)
        return *(g if n else None for g, n in zip(found, needs, strict=True)), *nothing


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    """Kernels know their dtypes. Where it is off nothing is entered, as that takes as long as a small kernel."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _gradient(tensor: Tensor, grad: Tensor | None) -> Tensor:
    """As the fake kernel promises it: contiguous, in the dtype of the tensor; zeros where nothing was found."""
    if grad is None:
        return tensor.new_zeros(tensor.shape)
    return (grad if grad.dtype == tensor.dtype else grad.to(tensor.dtype)).contiguous()


_functorch: Any = torch._C._functorch  # type: ignore[attr-defined]
_GRAD, _VMAP, _JVP = (_functorch.TransformType.__members__[name] for name in ("Grad", "Vmap", "Jvp"))


def transforms() -> set[Any]:
    """The transforms of torch.func around this call; forward derivatives outside of torch.func count as well."""
    found = set()
    if torch.compiler.is_compiling():  # which traces through them
        return found
    if _functorch.peek_interpreter_stack() is not None:
        found = {level.key() for level in _functorch.get_interpreter_stack()}
    return found if forward_ad._current_level < 0 else found | {_JVP}


class _Plain(torch.autograd.Function):
    """An op that nobody watches: the same two passes without the dispatcher, which takes longer than a small kernel."""

    @staticmethod
    def forward(ctx, *given):
        *inputs, ctx.op = given
        *outputs, trace = ctx.op._forward(*inputs)
        ctx.op._setup_context(ctx, inputs, (*outputs, trace))
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *grads):
        if torch.is_grad_enabled():
            return *_OnlyOnce.apply(ctx, len(grads), *grads, *ctx.saved_tensors), None
        return *ctx.op._gradients(ctx, grads, ctx.op._backward), None


class _OnlyOnce(torch.autograd.Function):
    """Gradients that refuse to be differentiated, by whatever they came of. With PyTorch's `once_differentiable` those
    of a constant gradient, such as a sum's, are constants: a term that penalises them would be lost."""

    @staticmethod
    def forward(ctx, plain, count, *tensors):
        ctx.name = plain.op.name
        return plain.op._gradients(plain, tensors[:count], plain.op._backward)

    @staticmethod
    def backward(ctx, *grads):
        raise BackendError(
            f"A second derivative of {ctx.name} was asked for, and its kernels have a first one only. Run it with "
            'rt.backend("reference"), which is differentiable any number of times.'
        )


class _Transformed(torch.autograd.Function):
    """An op under torch.func.grad, which the autograd of torch.library does not know: the same two passes."""

    @staticmethod
    def forward(*given):
        *arguments, op = given
        return op._call(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *inputs, ctx.op = inputs
        ctx.op._setup_context(ctx, inputs, output)

    @staticmethod
    def backward(ctx, *grads):
        return *ctx.op._autograd(ctx, *grads), None


def _is_plain(tensor: Tensor) -> bool:
    """Nobody watches the call: no mode, no transform, no subclass. Then the dispatcher's microseconds are saved.

    A tape watches, and wants what the kernel itself calls.
    """
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not tensor.is_meta
        and (torch._C._len_torch_dispatch_stack() == 0 or recording())
        and _functorch.peek_interpreter_stack() is None
    )
