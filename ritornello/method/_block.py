"""The programs of `Compiled`: a loop over blocks of unrolled steps, and the same loop reversed for the gradients.

Forward, for each block of K steps:   h_t = step(u_t, h_{t−1}), where the sequence still runs; else h_t = h_{t−1}.
Backward, from the last block:        g_{t−1} = (∂h_t/∂h_{t−1})ᵀ (g_t + ḡ_t), from the stored states; then the gradients
                                      of inputs and weights from all g_t at once, the steps lying in the batch.

The loop over blocks is PyTorch's `scan`, so the compiler sees one block and the loop runs in its code.
Shapes: N blocks, K steps, B sequences; tensors over time are (N, K, B, ...).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch._higher_order_ops.scan import scan
from torch.func import functional_call, vjp
from torch.utils import _pytree as pytree

from ritornello.errors import BackendError
from ritornello.implicit import first_only
from ritornello.typing import Tensor

__all__ = ["BACKEND", "CPU", "Program", "Step", "solve"]

Leaves = list[Tensor]

CPU = {
    "cpp_wrapper": True,  # the loop over blocks in C++: it took 19 µs a block in Python, 7 in C++
    # Whole blocks fused into one expression wait for each tanh; step by step, the lanes of a step overlap.
    "max_fusion_size": 1,
    "cpp.use_decompose_tanh": True,  # 2σ(2x) − 1 is inlined, a call of tanh is not
    "cpp.min_chunk_size": 8192,  # fewer numbers than this are done before a second thread has woken up
}


BACKEND = "inductor"
"""Of torch.compile; "eager" traces the same programs and compiles nothing."""


class Step(nn.Module):
    """A cell's step on lists of tensors, of which some are differentiated."""

    def __init__(self, cell: nn.Module, u: pytree.TreeSpec, h: pytree.TreeSpec, moving: tuple[bool, ...]):
        super().__init__()
        self.cell = cell
        self.u_spec, self.h_spec, self.moving = u, h, moving

    def forward(self, u: Leaves, h: Leaves) -> Leaves:
        new = self.cell.step(pytree.tree_unflatten(u, self.u_spec), pytree.tree_unflatten(h, self.h_spec))  # type: ignore[operator]
        return pytree.tree_leaves(new)


def forward(step: Step, weights: dict[str, Tensor], block: int, u: Leaves, valid: Tensor, h: Leaves) -> Any:
    """The last state, and the states at all times."""

    def run(h: Leaves, xs: tuple[Leaves, Tensor]) -> tuple[Leaves, Leaves]:
        u, valid = xs
        states = []
        for t in range(block):
            new = functional_call(step, weights, ([x[t] for x in u], h))
            h = [_keep(valid[t], n, o) for n, o in zip(new, h, strict=True)]
            states.append(h)
        return h, [torch.stack(s) for s in zip(*states, strict=True)]

    return scan(run, h, (u, valid), dim=0)


def propagate(
    step: Step, weights: dict[str, Tensor], block: int, u: Leaves, valid: Tensor, h: Leaves, grads: Leaves, last: Leaves
) -> Any:
    """The gradient of the first state, and of what each step returned: zero where it was not used.

    Args:
        h: the states before each step.
        grads: of the states at all times, of those that are differentiated; `last` of the last one.
    """

    def run(g: Leaves, xs: tuple[Leaves, Tensor, Leaves, Leaves]) -> tuple[Leaves, Leaves]:
        u, valid, h, grads = xs
        out = []
        for t in reversed(range(block)):
            g = [a + b[t] for a, b in zip(g, grads, strict=True)]
            returned = [_keep(valid[t], x, torch.zeros_like(x)) for x in g]
            before = [x[t] for x in h]

            def of_state(*state: Tensor, t: int = t, before: Leaves = before) -> tuple[Tensor, ...]:
                new = functional_call(step, weights, ([x[t] for x in u], _merge(step.moving, state, before)))
                return tuple(_select(step.moving, new))

            pull: Any = vjp(of_state, *_select(step.moving, before))[1]
            g = [_keep(valid[t], p, x) for p, x in zip(pull(tuple(returned)), g, strict=True)]
            out.append(returned)
        return g, [torch.stack(x[::-1]) for x in zip(*out, strict=True)]

    return scan(run, last, (u, valid, h, grads), dim=0, reverse=True)


def gather(
    step: Step, weights: dict[str, Tensor], wanted: tuple[tuple[bool, ...], tuple[str, ...]], u: Leaves, h: Leaves,
    returned: Leaves,
) -> tuple[Leaves, dict[str, Tensor]]:  # fmt: skip
    """The gradients of the inputs and weights that are wanted, of all steps in one batch (rows, ...)."""
    inputs, names = wanted

    def of_rest(u_moving: Leaves, some: dict[str, Tensor]) -> Leaves:
        return _select(step.moving, functional_call(step, weights | some, (_merge(inputs, u_moving, u), h)))

    pull: Any = vjp(of_rest, _select(inputs, u), {n: weights[n] for n in names})[1]
    return pull(returned)


def _keep(valid: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(valid.view(-1, *(1,) * (new.dim() - 1)), new, old)


def _select(flags: Sequence[bool], leaves: Sequence[Tensor]) -> Leaves:
    return [x for flag, x in zip(flags, leaves, strict=True) if flag]


def _merge(flags: Sequence[bool], some: Sequence[Tensor], leaves: Sequence[Tensor]) -> Leaves:
    """`leaves`, with those that are flagged from `some`."""
    rest = iter(some)
    return [next(rest) if flag else x for flag, x in zip(flags, leaves, strict=True)]


# ------------------------------------------------------------------------------------------------------- the programs


@contextmanager
def _short_exponentials() -> Iterator[None]:
    """Inductor's C++ calls a library for each vector's exponential, of which a gate has one; PyTorch's own short one
    (exp_u20, of its attention kernels) is inlined. ParaGRU, B4 T4096 d256, processor time of one thread with other work
    beside it: 40 ms → 24 forward, 138 → 131 with gradients. Where PyTorch has it elsewhere nothing is changed.
    """
    try:
        from torch._inductor.codegen.cpp import CppVecOverrides as made

        kept = {name: vars(made)[name] for name in ("exp", "sigmoid", "tanh")}
    except (ImportError, KeyError):
        yield
        return

    def shortened(write: Any) -> Any:
        return staticmethod(lambda x: write.__func__(x).replace(".exp()", ".exp_u20()"))

    try:
        for name, write in kept.items():
            setattr(made, name, shortened(write))
        yield
    finally:
        for name, write in kept.items():
            setattr(made, name, write)


@dataclass
class Program:
    """The compiled functions of a kind of cell and its sizes; `failure` says why there are none."""

    device: str
    failure: str | None = None
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def call(self, function: types.FunctionType, *arguments: Any) -> Any:
        compiled = self.functions.get(function.__name__)
        if compiled is None:
            # A copy of the code: the compiler keeps what it has made with the code, 8 versions at most.
            code = function.__code__.replace()
            copy = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
            options: Any = CPU if self.device == "cpu" and BACKEND == "inductor" else None
            compiled = torch.compile(copy, fullgraph=True, dynamic=False, backend=BACKEND, options=options)
            self.functions[function.__name__] = compiled
        with _short_exponentials():
            return compiled(*arguments)

    def gradient_call(self, function: types.FunctionType, step: Step, *arguments: Any) -> Any:
        """`call` in the backward pass, where it is too late to run step by step.

        Raises:
            BackendError: the compiler cannot follow the step's derivative, or there is none that works.
        """
        try:
            return self.call(function, step, *arguments)
        except TorchDynamoException as error:
            name, reason = type(step.cell).__name__, str(getattr(error, "inner_exception", error)).strip()
            raise BackendError(
                f"Compiled() ran the steps of {name}, and cannot compile their gradients: "
                f"{reason.partition(chr(10))[0]} Write the step with PyTorch's own differentiable operations, or run "
                "it with Sequential()."
            ) from error


def solve(
    program: Program, step: Step, block: int, u: Leaves, valid: Tensor, h: Leaves, weights: dict[str, Tensor]
) -> tuple[Leaves, Leaves]:
    """The states at all times, (N, K, B, ...), and the last one."""
    tensors = [valid, *u, *h, *weights.values()]
    found = _Blocks.apply(program, step, block, len(u), list(weights), *tensors)
    return list(found[: len(h)]), list(found[len(h) :])


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, program: Program, step: Step, block: int, inputs: int, names: list[str], *tensors: Tensor):
        ctx.how = program, step, block, inputs, names
        valid, u, h, weights = _parts(inputs, names, tensors)
        last, states = program.call(forward, step, weights, block, _many(u, 2), _many([valid], 2)[0], _many(h, 0))
        ctx.save_for_backward(*tensors, *states)
        ctx.mark_non_differentiable(*(x for x in [*states, *last] if not x.is_floating_point()))
        ctx.set_materialize_grads(False)
        return *states, *last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None):
        program, step, block, inputs, names = ctx.how
        first_only(f"{type(step.cell).__name__} run with Compiled()", "Run it with rt.Sequential().")
        count = len(step.moving)
        saved = ctx.saved_tensors  # asked for once: a checkpoint computes them again for one asking
        tensors, states = saved[:-count], saved[-count:]
        valid, u, h, weights = _parts(inputs, names, tensors)
        before = [torch.cat([a.unsqueeze(0), s.flatten(0, 1)[:-1]]).view_as(s) for a, s in zip(h, states, strict=True)]
        got = [torch.zeros_like(x) if g is None else g.contiguous() for g, x in zip(grads, [*states, *h], strict=True)]
        g_states, g_last = _select(step.moving, got[:count]), _select(step.moving, got[count:])
        call = program.gradient_call
        first, returned = call(
            propagate, step, weights, block, _many(u, 2), _many([valid], 2)[0], _many(before, 2), _many(g_states, 2),
            _many(g_last, 0),
        )  # fmt: skip
        needs = ctx.needs_input_grad[-len(tensors) :]
        u_needs = tuple(needs[1 : 1 + inputs])
        w_needs = tuple(n for n, need in zip(names, needs[1 + inputs + count :], strict=True) if need)
        g_u, g_w = [], {}
        if any(u_needs) or w_needs:
            flat = [_many([x.flatten(0, 2) for x in leaves], 0) for leaves in (u, before, returned)]
            g_u, g_w = call(gather, step, weights, (u_needs, w_needs), *flat)
        spread_u = _spread(u_needs, g_u, u)
        return *(None,) * 6, *spread_u, *_spread(step.moving, first, h), *(g_w.get(n) for n in names)


def _parts(inputs: int, names: list[str], tensors: Sequence[Tensor]):
    valid, u, rest = tensors[0], list(tensors[1 : 1 + inputs]), tensors[1 + inputs :]
    count = len(rest) - len(names)
    weights = {n: w.detach() for n, w in zip(names, rest[count:], strict=True)}
    return valid, u, list(rest[:count]), weights


def _spread(flags: Sequence[bool], grads: Sequence[Tensor], like: Leaves) -> list[Tensor | None]:
    rest = iter(grads)
    return [next(rest).view_as(x) if flag else None for flag, x in zip(flags, like, strict=True)]


def _many(leaves: Leaves, batch: int) -> Leaves:
    """Mark what may differ from call to call without compiling again: the first dimension, and the batch."""
    for x in leaves:
        for dim in {0, batch}:
            if x.shape[dim] > 1:  # one row is compiled apart
                torch._dynamo.maybe_mark_dynamic(x, dim)
    return leaves
