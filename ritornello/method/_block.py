"""The programs of `Compiled`: a loop over blocks of unrolled steps, and the same loop reversed for the gradients.

Forward, for each block of K steps:   h_t = step(u_t, h_{t−1}), where the sequence still runs; else h_t = h_{t−1}.
Backward, from the last block:        g_{t−1} = (∂h_t/∂h_{t−1})ᵀ (g_t + ḡ_t), from the stored states; then the gradients
                                      of inputs and weights from all g_t, the steps lying in the batch.

The loop over blocks is PyTorch's `scan`, so the compiler sees one block and the loop runs in its code. It is told where
each block begins, and reads it from tensors that lie as they came: to copy them into fresh memory took longer than the
steps.
Shapes: N blocks, K steps, B sequences; inputs are (B, T, ...), states over time (T, B, ...).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
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
from ritornello.kernels.native._tensors import blank
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


OF_ROWS = {name: value for name, value in CPU.items() if name != "max_fusion_size"}

ROWS = 4096
"""At most so many steps in one batch: more are another program of Inductor's, and do not fit into the second cache."""

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


def forward(
    step: Step, weights: dict[str, Tensor], block: int, starts: Tensor, valid: Tensor, u: Leaves, h: Leaves
) -> Any:
    """The last state, and the states of all blocks' steps."""

    def run(h: Leaves, xs: tuple[Tensor, Tensor]) -> tuple[Leaves, Leaves]:
        start, valid = xs
        now = _span(u, 1, start, block)
        states = []
        for t in range(block):
            new = functional_call(step, weights, ([x[:, t] for x in now], h))
            h = [_keep(valid[t], n, o) for n, o in zip(new, h, strict=True)]
            states.append(h)
        return h, [torch.stack(s) for s in zip(*states, strict=True)]

    return scan(run, h, (starts, valid), dim=0)


def propagate(
    step: Step, weights: dict[str, Tensor], block: int, starts: Tensor, valid: Tensor, u: Leaves, first: Leaves,
    states: Leaves, grads: Leaves, last: Leaves,
) -> Any:  # fmt: skip
    """The gradient of the first state, and of what each step returned: zero where it was not used.

    Args:
        starts, valid: of the blocks, from the last one to the first.
        first: (N, B, ...) the states before them.
        states: (T, B, ...) at all times.
        grads: of the states at all times, of those that are differentiated; `last` of the last one.

    Returns:
        The second from the last step to the first one: turning it would be a copy, reading it backwards is none.
    """

    def run(g: Leaves, xs: tuple[Tensor, Tensor, Leaves]) -> tuple[Leaves, Leaves]:
        start, valid, first = xs
        now, h, more = _span(u, 1, start, block), _span(states, 0, start, block), _span(grads, 0, start, block)
        out = []
        for t in reversed(range(block)):
            came = [a + b[t] for a, b in zip(g, more, strict=True)]
            returned = [_keep(valid[t], x, torch.zeros_like(x)) for x in came]
            before = [x[t - 1] for x in h] if t else first

            def of_state(*state: Tensor, t: int = t, before: Leaves = before) -> tuple[Tensor, ...]:
                new = functional_call(step, weights, ([x[:, t] for x in now], _merge(step.moving, state, before)))
                return tuple(_select(step.moving, new))

            pull: Any = vjp(of_state, *_select(step.moving, before))[1]
            g = [_keep(valid[t], p, x) for p, x in zip(pull(tuple(returned)), g, strict=True)]
            out.append(returned)
        return g, [torch.stack(x) for x in zip(*out, strict=True)]

    return scan(run, last, (starts, valid, first), dim=0)


def gather(
    step: Step, weights: dict[str, Tensor], wanted: tuple[tuple[bool, ...], tuple[str, ...]], u: Leaves, h: Leaves,
    returned: Leaves,
) -> tuple[Leaves, dict[str, Tensor]]:  # fmt: skip
    """The gradients of the inputs and weights that are wanted, of many steps in one batch (rows, ...)."""
    inputs, names = wanted

    def of_rest(u_moving: Leaves, some: dict[str, Tensor]) -> Leaves:
        return _select(step.moving, functional_call(step, weights | some, (_merge(inputs, u_moving, u), h)))

    pull: Any = vjp(of_rest, _select(inputs, u), {n: weights[n] for n in names})[1]
    return pull(returned)


def _span(leaves: Leaves, dim: int, start: Tensor, block: int) -> Leaves:
    """`block` times from `start` on: where they begin is read inside of the loop, so that nothing is copied."""
    begin = int(start.item())
    torch._check(begin >= 0)
    for x in leaves:
        torch._check(begin + block <= x.shape[dim])
    return [x.narrow(dim, begin, block) for x in leaves]


def _keep(valid: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(_like(valid, new), new, old)


def _like(valid: Tensor, x: Tensor) -> Tensor:
    """(B,) → (B, 1, ...)"""
    return valid.view(-1, *(1,) * (x.dim() - 1))


def _select(flags: Sequence[bool], leaves: Sequence[Tensor]) -> Leaves:
    return [x for flag, x in zip(flags, leaves, strict=True) if flag]


def _merge(flags: Sequence[bool], some: Sequence[Tensor], leaves: Sequence[Tensor]) -> Leaves:
    """`leaves`, with those that are flagged from `some`."""
    rest = iter(some)
    return [next(rest) if flag else x for flag, x in zip(flags, leaves, strict=True)]


# ------------------------------------------------------------------------------------------------------- the programs


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
            options: Any = None
            if self.device == "cpu" and BACKEND == "inductor":
                options = OF_ROWS if function is gather else CPU
            compiled = torch.compile(copy, fullgraph=True, dynamic=False, backend=BACKEND, options=options)
            self.functions[function.__name__] = compiled
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
    program: Program, step: Step, block: int, valid: Tensor, u: Leaves, h: Leaves, weights: dict[str, Tensor]
) -> tuple[Leaves, Leaves]:
    """The states at all times, (T, B, ...), and the last one.

    Args:
        valid: (B, T) where the sequences run; T is at least a block.
        u: (B, T, ...), contiguous.
    """
    found = _Blocks.apply(program, step, block, len(u), list(weights), valid, *u, *h, *weights.values())
    return list(found[: len(h)]), list(found[len(h) :])


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, program: Program, step: Step, block: int, inputs: int, names: list[str], *tensors: Tensor):
        ctx.how = program, step, block, inputs, names
        valid, u, h, weights = _parts(inputs, names, tensors)
        last, states = program.call(forward, step, weights, block, *_cut(valid, block), _many(u, 0, 1), _many(h, 0))
        states = [_in_time(s, valid.shape[1]) for s in states]
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
        tensors, states = saved[:-count], [s.detach() for s in saved[-count:]]
        valid, u, h, weights = _parts(inputs, names, tensors)
        got = [torch.zeros_like(x) if g is None else g.contiguous() for g, x in zip(grads, [*states, *h], strict=True)]
        g_states, g_last = _select(step.moving, got[:count]), _select(step.moving, got[count:])
        starts, runs = _cut(valid, block, backward=True)
        before = [torch.cat([s[starts[:-1] - 1], a.unsqueeze(0)]) for a, s in zip(h, states, strict=True)]
        call = program.gradient_call
        _many([*u, *states, *g_states, *before], 0, 1)
        first, returned = call(
            propagate, step, weights, block, starts, runs, u, before, states, g_states, _many(g_last, 0)
        )
        needs = ctx.needs_input_grad[-len(tensors) :]
        u_needs = tuple(needs[1 : 1 + inputs])
        w_needs = tuple(n for n, need in zip(names, needs[1 + inputs + count :], strict=True) if need)
        g_u, g_w = [], {}
        if any(u_needs) or w_needs:
            wanted = u_needs, w_needs
            returned = [_in_time(x, valid.shape[1]) for x in returned]
            g_u, g_w = _gather(program, step, weights, wanted, u, h, states, returned)
        return *(None,) * 6, *_spread(u_needs, g_u), *_spread(step.moving, first), *(g_w.get(n) for n in names)


def _gather(
    program: Program, step: Step, weights: dict[str, Tensor], wanted: Any, u: Leaves, h: Leaves, states: Leaves,
    returned: Leaves,
) -> tuple[Leaves, dict[str, Tensor]]:  # fmt: skip
    """`gather` by so many rows that what it makes on the way stays in the second cache.

    Args:
        u, h, states, returned: (B, T, ...), (B, ...), (T, B, ...), and that from the last step to the first one.
    """
    batch, length = u[0].shape[:2]
    before = [torch.cat([a.unsqueeze(1), s[:-1].transpose(0, 1)], 1) for a, s in zip(h, states, strict=True)]
    returned = [x.transpose(0, 1).flip(1) for x in returned]
    parts = -(-batch * length // ROWS)
    pieces = [zip(*(x.flatten(0, 1).tensor_split(parts) for x in xs), strict=True) for xs in (u, before, returned)]
    g_u = [blank(x.flatten(0, 1)) for x in _select(wanted[0], u)]
    into = [x.tensor_split(parts) for x in g_u]
    g_w: dict[str, Tensor] = {}
    for n, piece in enumerate(zip(*pieces, strict=True)):
        some, more = program.gradient_call(gather, step, weights, wanted, *(_many(list(xs), 0) for xs in piece))
        for whole, part in zip(into, some, strict=True):
            whole[n].copy_(part)
        g_w = {name: g_w[name] + g if n else g for name, g in more.items()}  # two names may share one tensor
    return [g.view_as(x) for g, x in zip(g_u, _select(wanted[0], u), strict=True)], g_w


def _parts(inputs: int, names: list[str], tensors: Sequence[Tensor]):
    tensors = [x.detach() for x in tensors]  # whether they want gradients is nothing to compile again for
    u, rest = tensors[1 : 1 + inputs], tensors[1 + inputs :]
    count = len(rest) - len(names)
    return tensors[0], u, rest[:count], dict(zip(names, rest[count:], strict=True))


def _spread(flags: Sequence[bool], grads: Sequence[Tensor]) -> list[Tensor | None]:
    rest = iter(grads)
    return [next(rest) if flag else None for flag in flags]


def _cut(valid: Tensor, block: int, backward: bool = False) -> tuple[Tensor, Tensor]:
    """Where the blocks begin, (N,), and which of their steps count, (N, K, B), in the order in which they run.

    The last block to run ends (backward: begins) where time does. Steps that it shares with the one before it have
    been done, and do not count.
    """
    length = valid.shape[1]
    done = torch.arange(0, length, block)
    starts = done.clamp(max=length - block)
    times = starts.unsqueeze(1) + torch.arange(block)
    new = (times >= done.unsqueeze(1)).unsqueeze(2)
    if backward:
        starts, times, new = length - block - starts, (length - 1 - times).flip(1), new.flip(1)
    runs = valid.T[times.to(valid.device)] & new.to(valid.device)
    return _many([starts], 0)[0], _many([runs], 0, 2)[0]


def _in_time(blocks: Tensor, length: int) -> Tensor:
    """What the blocks gave, (N, K, B, ...), as (T, B, ...), without the steps that the last one did again.

    The end of `blocks` is overwritten.
    """
    flat, rest = blocks.flatten(0, 1), length % blocks.shape[1]
    if rest:
        flat[length - rest : length] = flat[-rest:].clone()
    return flat[:length]


def _many(leaves: Leaves, *dims: int) -> Leaves:
    """Mark the dimensions that may differ from call to call without compiling again."""
    for x in leaves:
        for dim in dims:
            if x.shape[dim] > 1:  # one row is compiled apart
                torch._dynamo.maybe_mark_dynamic(x, dim)
    return leaves
