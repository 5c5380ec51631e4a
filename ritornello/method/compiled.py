"""Any cell's steps, compiled by the block."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.errors import BackendError
from ritornello.implicit import ImplicitCell
from ritornello.kernels.registry import record
from ritornello.method._probe import check_pure, few_rows
from ritornello.method.base import Method, Recurrence, Solution, check_count, transformed
from ritornello.method.sequential import Sequential
from ritornello.sequence import Sequence, leading
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

if TYPE_CHECKING:
    from ritornello.method._block import Program, Step

__all__ = ["Compiled"]


@dataclass(frozen=True)
class Compiled(Method):
    """A cell's steps through `torch.compile`, `block` of them unrolled; between blocks a loop in compiled code.

    The gradients come from the stored states by a reversed loop of blocks: memory O(T·state), and no graph of T steps.
    Compiled once for a class of cells, its sizes and dtype (and again for a batch of one), whatever T: this takes some
    ten seconds. Gradients reach the cell's parameters, buffers and attributes that are tensors; a step that reads
    another tensor that wants one (of a closure, of a list) is refused. Sequences no longer than a block run step by
    step. Without a working compiler it warns, and runs `Sequential`; what was done stands in ``stats["ran"]`` and the
    seconds of the first call in ``stats["first_call"]``.
    """

    block: int = 16

    def __post_init__(self):
        check_count(self, "block", "step")

    def refusal(self, recurrence: Recurrence) -> str | None:
        if isinstance(recurrence, Transition):
            return "it is no cell with a step, and has compiled kernels of its own."
        if isinstance(recurrence, ImplicitCell):
            return "its step solves an equation, by as many sweeps as that takes."
        if torch.compiler.is_compiling():
            return "it compiles by itself, and cannot stand inside another torch.compile."
        return transformed()

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        raise AssertionError("refused before")

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        sequence = Sequence.of(leading(u), cu_seqlens)
        rows = sequence.pad(u)
        lead = leading(rows)
        if lead.shape[1] <= self.block or lead.shape[0] == 0:
            return _by_steps(cell, u, state, cu_seqlens, f"step by step: no sequence is longer than {self.block}")
        program = _program(self, cell, rows, state)
        check_pure(cell, *few_rows(rows, state))
        if program.failure is None:
            begin = time.perf_counter()
            fresh = not program.functions
            try:
                states, last = self._blocks(program, cell, rows, state, sequence)
            except Exception as error:
                program.failure = _why(cell, error)
            else:
                record(type(cell).__name__, "compiled")
                told = {"ran": f"{-(-lead.shape[1] // self.block)} compiled blocks"}
                first = {"first_call": time.perf_counter() - begin} if fresh else {}
                return Solution(sequence.unpad(states), last, told | first)
        return _by_steps(cell, u, state, cu_seqlens, f"Sequential(): {program.failure}")

    def _blocks(self, program: Program, cell: Cell, rows: Tree, state: Tree, sequence: Sequence) -> tuple[Tree, Tree]:
        from ritornello.method import _block

        (inputs, u_spec), (h, h_spec) = pytree.tree_flatten(rows), pytree.tree_flatten(state)
        device = inputs[0].device
        step = _block.Step(cell, u_spec, h_spec, tuple(x.is_floating_point() for x in h))
        weights = {**dict(step.named_parameters()), **dict(step.named_buffers()), **_attributes(step)}
        _refuse_hidden(step, weights, *few_rows(inputs, h))
        valid = sequence.valid(device).expand(inputs[0].shape[0], -1)
        inputs, h = [x.contiguous() for x in inputs], [x.contiguous() for x in h]
        states, last = _block.solve(program, step, self.block, valid, inputs, h, weights)
        states = [s.transpose(0, 1) for s in states]
        return pytree.tree_unflatten(states, h_spec), pytree.tree_unflatten(last, h_spec)


_programs: dict[Any, Program] = {}


def _program(method: Compiled, cell: Cell, rows: Tree, state: Tree) -> Program:
    """What was compiled for this class of cells and its sizes, so that its instances share it."""
    from ritornello.method._block import Program

    (u, u_spec), (h, h_spec) = pytree.tree_flatten(rows), pytree.tree_flatten(state)
    parameters = tuple((n, p.shape, p.dtype) for n, p in cell.named_parameters())
    sizes = tuple((x.shape[2:], x.dtype) for x in u), tuple((x.shape[1:], x.dtype) for x in h)
    key = type(cell), method.block, str(u[0].device), repr(u_spec), repr(h_spec), parameters, sizes
    if key not in _programs:
        _programs[key] = Program(u[0].device.type)
    return _programs[key]


def _attributes(step: nn.Module) -> dict[str, Tensor]:
    """The plain tensors among the modules' attributes that want a gradient."""
    return {
        f"{path}.{name}": value
        for path, module in step.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.requires_grad
    }


def _refuse_hidden(step: Step, weights: dict[str, Tensor], u: list[Tensor], h: list[Tensor]) -> None:
    """A tensor that the step finds for itself is a constant of the compiled code, and would get no gradient.

    Raises:
        BackendError: there is such a tensor.
    """
    if not torch.is_grad_enabled():
        return
    weights = {n: w.detach() for n, w in weights.items()}
    new = functional_call(step, weights, ([x.detach() for x in u], [x.detach() for x in h]))
    if any(x.requires_grad for x in new):
        name = type(step.cell).__name__
        raise BackendError(
            f"Compiled() cannot give a gradient to a tensor that the step of {name} reads from beside its arguments "
            f"and attributes (a closure, a global name, a list). Make it a parameter or an attribute of {name}, give "
            "it to the step with u by `drive`, or run with Sequential()."
        )


def _by_steps(cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None, ran: str) -> Solution:
    return Solution(*Sequential().solve(cell, u, state, cu_seqlens), {"ran": ran})


def _why(cell: Cell, error: Exception) -> str:
    """Why there is no compiled code, after a warning; an error of the step itself is raised again.

    Raises:
        BackendError: the compiler cannot follow the step.
    """
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

    name = type(cell).__name__
    if isinstance(error, BackendCompilerFailed):
        reason = str(getattr(error, "inner_exception", error)).strip().partition("\n")[0]
        warnings.warn(
            f"Compiled() found no compiler that works for {name} ({reason}). It runs step by step instead, with the "
            "same numbers, more slowly. Install a C++ compiler (Linux: apt install g++; macOS: xcode-select --install; "
            "or set CXX), then start again.",
            stacklevel=6,
        )
        return f"no compiler that works ({reason})"
    if isinstance(error, TorchDynamoException):
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"Compiled() cannot follow the step of {name}: {reason} Write the step with tensor operations only (no "
            "branch on a tensor's value, no .item()), or run it with Sequential()."
        ) from error
    raise error
