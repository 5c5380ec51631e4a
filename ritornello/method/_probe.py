"""Whether a cell's step is what methods rely on: a function of its input and the state, and of nothing else."""

from __future__ import annotations

import inspect
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree

from ritornello._written import describe
from ritornello.cell import Cell
from ritornello.errors import InputError, RitornelloError
from ritornello.typing import Tensor, Tree

__all__ = ["check_once", "check_pure", "few_rows", "unseen"]

ROWS = 4
MOST_PARTS = 100
"""Of a list or a dict that is looked at for changes."""

_checked: WeakKeyDictionary[Cell, set[Any]] = WeakKeyDictionary()


def unseen() -> torch.autograd.graph.saved_tensors_hooks:
    """What is recorded inside is for nobody else: a checkpoint counts what a forward pass saves, and a cell is looked
    at in the first one only."""
    # Detached: an output that its own function saves would hold itself, and its memory until the garbage is collected.
    return torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, lambda saved: saved)


@torch.no_grad()
def few_rows(u: Tree, state: Tree) -> tuple[Tree, Tree]:
    """A few steps' inputs from (B, T, ...), with their sequences' states: both with leading (R,)."""
    lead = pytree.tree_leaves(u)[0]
    count = lead.shape[0] * lead.shape[1]
    flat = torch.linspace(0, count - 1, min(ROWS, count)).round().long()
    row, time = flat // lead.shape[1], flat % lead.shape[1]
    return pytree.tree_map(lambda x: x[row, time], u), pytree.tree_map(lambda x: x[row], state)


def check_once(cell: Cell, u: Tree, state: Tree, lead: Tensor) -> None:
    """`check_pure` for a cell that has not been looked at yet, from what it is run with: u (B, T, ...) and the state.

    Packed sequences lie in one row: the first sequence's state stands for all. `lead` is the x that u was made of.

    Raises:
        InputError: as `check_pure`, or what drives the steps has not the batch and time of x.
    """
    if torch.compiler.is_compiling() or cell in _checked:
        return
    driving = pytree.tree_leaves(u)
    if not driving or any(not isinstance(x, Tensor) or x.shape[:2] != lead.shape[:2] for x in driving):
        raise InputError(
            f"drive(x) of {type(cell).__name__} returned {describe(u)}, for an x of (B, T) = {tuple(lead.shape[:2])}. "
            "Return a tensor, or a nest of such, with that leading (B, T): the step is given one time of each."
        )
    if lead.shape[0] * lead.shape[1] == 0:
        return
    leaves = pytree.tree_leaves(state)
    if leaves and len(leaves[0]) >= lead.shape[0]:
        check_pure(cell, *few_rows(u, state))


def check_pure(cell: Cell, u: Tree, h: Tree) -> None:
    """Try the step on a few rows, once for each cell and kind of state, and refuse one that is not pure.

    Args:
        u, h: with leading (R,).

    Raises:
        InputError: the step changes its arguments, returns another shape or dtype, returns NaN, draws random numbers,
            keeps something from call to call, or lets the rows of a batch act on each other.
    """
    leaves, spec = pytree.tree_flatten(h)
    key = spec, cell.training, tuple((x.shape[1:], x.dtype, x.device) for x in leaves)
    known = _checked.setdefault(cell, set())
    if key in known or leaves[0].shape[0] == 0:
        return
    name = type(cell).__name__
    devices = [x.device for x in leaves if x.device.type == "cuda"]
    # Without autocast, as methods run the steps.
    plain = torch.autocast(leaves[0].device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), plain, torch.random.fork_rng(devices):
        before, drawn = _attributes(cell), torch.get_rng_state()
        first = _call(cell, name, u, h)
        _check_shapes(name, h, first)
        filled = _containers(cell)  # after one call: a table that it makes and keeps does no harm
        again = _call(cell, name, u, h)
        _call(cell, name, u, first)  # from a state that is not 0, which a product in place would leave as it is
        if not torch.equal(drawn, torch.get_rng_state()):
            raise InputError(
                f"The step of {name} draws random numbers. Draw them in `drive`, for all times at once, and let the "
                "step read them from u; for dropout, call cell.eval() or mask what drives the step."
            )
        if not _same(first, again) or before != _attributes(cell) or filled != _containers(cell):
            raise InputError(
                f"The step of {name} keeps something from call to call (a counter, a list, a buffer, a random "
                "generator), so that the same input and state need not give the same result. Put what changes with "
                "time into u, by `drive`, or into the state."
            )
        _check_numbers(name, u, h, first)
        _check_rows(cell, name, u, h, first)
    known.add(key)


def _call(cell: Cell, name: str, u: Tree, h: Tree) -> Tree:
    given = pytree.tree_map(torch.clone, (u, h))
    versions = [x._version for x in pytree.tree_leaves(given)]  # what changed a number into itself counts too
    try:
        result = cell.step(*given)
    except (NotImplementedError, RitornelloError):  # these are sentences already
        raise
    except Exception as error:
        error.add_note(
            f"The step of {name} was given u = {describe(u)} and h = {describe(h)}: a few rows, to try it. What h is "
            f"like is said by initial_state or state_shape of {name}."
        )
        raise
    if versions != [x._version for x in pytree.tree_leaves(given)] or not _same(given, (u, h)):
        raise InputError(
            f"The step of {name} changes its arguments in place; methods call it more than once with the same ones. "
            "Return new tensors: h = h + x instead of h += x."
        )
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, result)


def _same(one: Tree, two: Tree) -> bool:
    """Equal to the bit, NaN included."""
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(two), strict=True)
    return all(a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)


def _check_shapes(name: str, h: Tree, new: Tree) -> None:
    (old, old_spec), (got, got_spec) = pytree.tree_flatten(h), pytree.tree_flatten(new)
    fits = old_spec == got_spec and all(
        isinstance(b, torch.Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype) for a, b in zip(old, got, strict=True)
    )
    if not fits:
        rows = old[0].shape[0]
        alike = all(x.shape[:1] == (rows,) for x in got if isinstance(x, torch.Tensor))
        batch = "without the batch" if alike else f"with the batch of {rows}"
        raise InputError(
            f"The step of {name} was given a state of {describe(h, alike)}, and returned {describe(new, alike)} "
            f"({batch}). Return the same nest in the same order, shapes and dtypes, e.g. new.to(h.dtype), or write an "
            "initial_state that has what the step returns."
        )


def _check_numbers(name: str, u: Tree, h: Tree, new: Tree) -> None:
    given = [x for x in pytree.tree_leaves((u, h)) if x.is_floating_point()]
    if all(bool(x.isfinite().all()) for x in given) and any(bool(x.isnan().any()) for x in pytree.tree_leaves(new)):
        raise InputError(
            f"The step of {name} returned NaN for a finite input and state. Keep it in its domain: clamp before a "
            "logarithm, a root or a division, and start from an initial_state where they are defined."
        )


def _check_rows(cell: Cell, name: str, u: Tree, h: Tree, new: Tree) -> None:
    """Rows in another order, and one alone: methods put times where the batch was."""
    rows = pytree.tree_leaves(h)[0].shape[0]
    for order in (torch.arange(rows).flip(0), torch.arange(1)):
        wanted = pytree.tree_map(lambda x, o=order: x[o], new)
        got = cell.step(*pytree.tree_map(lambda x, o=order: x[o], (u, h)))
        close = (
            torch.allclose(
                a, b, rtol=1e-3, atol=1e-3 * float(b.nan_to_num(posinf=0, neginf=0).abs().max()), equal_nan=True
            )
            for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(wanted), strict=True)
            if b.numel() and b.is_floating_point()
        )
        if not all(close):
            raise InputError(
                f"The step of {name} gives a row other numbers in another place of the batch, or with other rows "
                "beside it (batch statistics, a table indexed by row). Let a row depend on its own input and state."
            )


def _attributes(cell: Cell) -> list[Any]:
    """The numbers and tensors of a module and its parts, in a form that tells whether they were changed."""
    found: list[Any] = []
    for module in cell.modules():
        held = {**vars(module), **module._parameters, **module._buffers}
        found += [(name, _seen(value, 0)) for name, value in held.items() if _seen(value, 0) is not None]
    return found


def _containers(cell: Cell) -> list[Any]:
    """The same for lists, dicts and sets, and for what the step finds outside of the cell by name."""
    found: list[Any] = [_seen(value, 2) for module in cell.modules() for value in vars(module).values()]
    try:
        outside = inspect.getclosurevars(inspect.unwrap(type(cell).step))
    except TypeError:  # no function of Python
        return found
    return found + [_seen(value, 2) for value in (*outside.nonlocals.values(), *outside.globals.values())]


def _seen(value: object, depth: int) -> Any:
    """What a value looks like, down to containers in containers; None for what cannot be told."""
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, bool | int | float | str):
        return value
    if depth and isinstance(value, list):  # one that only grows is a log, and says no more than before
        return tuple(_seen(part, depth - 1) for part in value[:1])
    if depth and isinstance(value, dict | tuple | set | deque):
        parts = [*value, *value.values()] if isinstance(value, dict) else list(value)
        return len(parts), [_seen(part, depth - 1) for part in parts[:MOST_PARTS]]
    return None
