"""Run a cell over a sequence."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree

from ritornello._written import describe
from ritornello.cell import AffineCell, Cell, demand_run, demand_transition
from ritornello.errors import InputError, StateError
from ritornello.kernels.tape import recording
from ritornello.method import Auto, Compiled, Fused, Method
from ritornello.method._probe import check_once
from ritornello.method.base import name_of
from ritornello.sequence import Sequence, leading
from ritornello.typing import Tensor, Tree

__all__ = ["Result", "run"]


class Result(NamedTuple):
    """The outputs at all times, the last state (pass it on to continue), and how it was run."""

    y: Any
    state: Tree
    stats: dict[str, Any]


def run(
    cell: Cell, x: Tree, state: Tree = None, method: Method | None = None, cu_seqlens: Tensor | None = None
) -> Result:
    """Run `cell` over `x`.

    Args:
        cell: a Cell or an AffineCell.
        x: a tensor (B, T, ...), or a pytree of such.
        state: what an earlier run returned; the cell's initial state where None.
        method: how; ``Auto()`` where None.
        cu_seqlens: (N + 1,) the bounds of N sequences packed along time with B = 1; the state's batch is then N.

    Returns:
        ``Result(y, state, stats)``.

    Raises:
        InputError: shapes that do not fit, or a step that is not pure.
        StateError: a state of another cell, batch, dtype or device.
        BackendError: a method that cannot run this cell.
    """
    method = Auto() if method is None else method
    if not isinstance(method, Method):
        raise InputError(
            f"`method` is {method!r}; wanted a value like rt.Fused() or rt.Chunked(64), or None for Auto()."
        )
    if not isinstance(cell, Cell):
        raise InputError(f"`cell` is a {type(cell).__name__}; wanted a rt.Cell or a rt.AffineCell.")
    lead = x if isinstance(x, Tensor) else leading(x)
    if not isinstance(lead, Tensor):
        raise InputError(f"`x` holds a {type(lead).__name__}; wanted a tensor (B, T, ...), or a nest of such.")
    if lead.dim() < 2:
        raise InputError(f"`x` has shape {tuple(lead.shape)}; wanted leading (B, T): a batch, then time.")
    sequence = Sequence.of(lead, cu_seqlens)
    if cu_seqlens is not None:
        x = pytree.tree_map(sequence.clear_unused, x)
    u = cell.drive(x)
    fresh = not torch.compiler.is_compiling() and not recording()
    if state is None:
        state = cell.initial_state(sequence.batch, lead)
        _check_batch(f"what initial_state of {type(cell).__name__} returned", state, sequence.batch)
    else:
        _check_batch("`state`", state, sequence.batch)
        fresh = fresh and _check_state(cell, state, lead)  # what goes on as it did is not looked at again
    affine = cell if isinstance(cell, AffineCell) and not isinstance(method, Compiled) else None  # it compiles the step
    recurrence = cell if affine is None else demand_transition(affine, affine.transition(u))
    chosen = method.choose(recurrence) if isinstance(method, Auto) else method
    if affine is not None:
        query = affine.query(u)
        if fresh:
            demand_run(affine, recurrence, query, state, lead)  # type: ignore[arg-type]
        o, last, told = chosen.solution(recurrence, query, state, cu_seqlens)
        y = affine.finish(u, o)
    else:
        if fresh and isinstance(cell, AffineCell):
            demand_run(cell, demand_transition(cell, cell.transition(u)), cell.query(u), state, lead)
        if not isinstance(chosen, Fused):  # which never calls the step
            check_once(cell, u, state, lead)
        h, last, told = chosen.solution(cell, u, state, cu_seqlens)
        y = cell.read(u, h)
    if fresh and y is None:
        name = "read(u, h)" if affine is None else "finish(u, o)"
        raise InputError(f"{name} of {type(cell).__name__} returned None; wanted the outputs. Return them.")
    if cu_seqlens is not None and _may_fill_unused(cell):
        y = pytree.tree_map(sequence.clear_unused, y)
    return Result(y, last, {"method": name_of(chosen), **told})


def _may_fill_unused(cell: Cell) -> bool:
    """Whether the outputs beyond the last packed step may be other than zero: the states there are zero."""
    if isinstance(cell, AffineCell):
        return type(cell).finish is not AffineCell.finish
    return type(cell).read is not Cell.read


def _check_batch(name: str, state: Tree, batch: int) -> None:
    for s in (state,) if isinstance(state, Tensor) else pytree.tree_leaves(state):
        if not isinstance(s, Tensor) or s.dim() == 0 or s.shape[0] != batch:
            got = f"a tensor {tuple(s.shape)}" if isinstance(s, Tensor) else f"a {type(s).__name__}"
            advice = "Pass the state that an earlier run returned, or None to start."
            raise StateError(
                f"{name} holds {got}; wanted tensors with a leading {batch}, one row a sequence. "
                f"{advice if name == '`state`' else 'Write it for the `batch` that it is given.'}"
            )


_fitting: WeakKeyDictionary[Cell, set[Any]] = WeakKeyDictionary()
"""What states of a cell look like that were found to be of its make."""


def _check_state(cell: Cell, state: Tree, lead: Tensor) -> bool:
    """Refuse a state of another make than the cell's own: looked at once for every kind of them, then told by True.

    Raises:
        StateError: another nest, or other shapes, dtypes or devices. An op brings the dtype of a transition's state.
    """
    leaves, spec = pytree.tree_flatten(state)
    key = spec, lead.shape[2:], lead.dtype, tuple((s.shape[1:], s.dtype, s.device) for s in leaves)
    known = _fitting.setdefault(cell, set())
    if key in known:
        return False
    with torch.no_grad():
        own = cell.initial_state(1, lead)
    mine, own_spec = pytree.tree_flatten(own)
    affine = isinstance(cell, AffineCell)

    def alike(given: Tensor, wanted: Tensor) -> bool:
        dtype = given.dtype == wanted.dtype or (affine and given.is_complex() <= wanted.is_complex())
        return given.shape[1:] == wanted.shape[1:] and given.device == wanted.device and dtype

    if spec != own_spec or not all(map(alike, leaves, mine)):
        where = sorted({str(s.device) for s in leaves} - {str(s.device) for s in mine})
        raise StateError(
            f"`state` is {describe(state, 1)} for each sequence{', on ' + where[0] if where else ''}; that of "
            f"{type(cell).__name__} is {describe(own, 1)}. Pass the state that an earlier run of this cell returned, "
            "for an x of the same dtype and device, or None to start."
        )
    known.add(key)
    return True
