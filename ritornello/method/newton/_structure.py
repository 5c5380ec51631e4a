"""Finding which numbers of a state act on each other, from the step alone, by forward-mode derivatives.

A derivative in the direction v is a sum over the numbers that v moves; where none of them acts on a number, its
derivative is 0 exactly, not nearly. So a set of directions in which any two groups are told apart (one moves, the other
rests) proves, at the states where it is tried, that no group touches another: 2 log₂ G directions are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.errors import BackendError, InputError
from ritornello.method.newton._layout import MOST_STATES, Layout, Structure
from ritornello.typing import Tensor, Tree

__all__ = ["derivatives", "structure_of", "touches"]

LARGEST = 4096
"""Numbers of a state up to which every one is moved by itself; beyond, only what its shape suggests is tried."""

_found: WeakKeyDictionary[Cell, dict[object, Structure]] = WeakKeyDictionary()


def push(
    cell: Cell, u: Tree, layout: Layout, leaves: Sequence[Tensor], directions: Sequence[Tensor | None]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """One step and its derivative in one direction, in one pass; None where a tensor's derivative is 0.

    Args:
        u, leaves: with leading (R,); the state's tensors.
        directions: one for each of them, None where it is at rest.
    """
    with forward_ad.dual_level():
        moved = [
            h if v is None else forward_ad.make_dual(h, v.expand_as(h)) for h, v in zip(leaves, directions, strict=True)
        ]
        try:
            stepped = pytree.tree_leaves(cell.step(u, layout.tree(moved)))
        except (NotImplementedError, RuntimeError) as error:
            if "forward" not in str(error):
                raise
            raise BackendError(
                f"The step of {type(cell).__name__} has no forward-mode derivative, which Newton needs: "
                f"{str(error).splitlines()[0]} Write it in PyTorch's operations, or run it with rt.Sequential()."
            ) from error
        pairs = [forward_ad.unpack_dual(h) for h in stepped]
    return [p.primal for p in pairs], [p.tangent for p in pairs]


def derivatives(cell: Cell, s: Structure, u: Tree, leaves: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """One step of each row and its Jacobian: the state's tensors, with leading (R,), and (R, \\*block_shape)."""
    if s.dense:
        return _in_one_pass(cell, s, u, leaves)
    columns, stepped = [], None
    for colour in s.colours:
        directions = [None if v is None else v.to(h) for v, h in zip(colour, leaves, strict=True)]
        primal, tangent = push(cell, u, s.layout, leaves, directions)
        stepped = primal if stepped is None else stepped
        columns.append(s.to_order(_filled(tangent, primal), 1).view(-1, *s.state_shape))
    assert stepped is not None
    return stepped, columns[0] if s.size == 1 else torch.stack(columns, -2)


def _filled(tangents: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if t is None else t for t, p in zip(tangents, like, strict=True)]


def _in_one_pass(cell: Cell, s: Structure, u: Tree, leaves: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Many directions at once: the step's value, which does not depend on the direction, is computed once."""
    basis = [
        torch.stack([torch.zeros(shape) if c[i] is None else c[i] for c in s.colours]).to(leaves[0])  # type: ignore
        for i, shape in enumerate(s.layout.shapes)
    ]

    def step(*h: Tensor) -> tuple[Tensor, ...]:
        return tuple(pytree.tree_leaves(cell.step(u, s.layout.tree(h))))

    def derivative(*v: Tensor) -> Any:
        return torch.func.jvp(step, tuple(leaves), tuple(x.expand_as(h) for x, h in zip(v, leaves, strict=True)))

    primal, columns = torch.func.vmap(derivative, out_dims=(None, 0))(*basis)  # type: ignore[arg-type]
    block = s.to_order(columns, 2).view(s.size, -1, *s.state_shape)  # [j, row, group, i]
    return list(primal), block.permute(1, 2, 3, 0)


def structure_of(cell: Cell, wanted: str, layout: Layout, u: Tree, h: Sequence[Tensor]) -> Structure:
    """The structure of the Jacobian of `cell`, found once and then kept.

    Args:
        wanted: ``"auto"`` to find it; ``"diagonal"``, ``"block"`` or ``"dense"`` to check that; ``"quasi"`` to keep
            what each channel does to itself, whatever else there is.
        u, h: a few inputs and states with leading (R,), at which to look.

    Raises:
        InputError: it was stated, and is not so.
    """
    if wanted == "auto":
        wanted = getattr(cell, "jacobian", "auto")
    key = _key(wanted, layout, h)
    known = _found.setdefault(cell, {})
    if key not in known:
        known[key] = _find(cell, wanted, layout, _Probe(cell, layout, u, h))
    return known[key]


def touches(cell: Cell, wanted: str, structure: Structure, u: Tree, h: Sequence[Tensor]) -> bool:
    """Whether the Jacobian at these states has more than its structure says. Then what was found is widened; what was
    stated is refused."""
    layout, probe = structure.layout, _Probe(cell, structure.layout, u, h)
    structure = structure if structure.whole is None else structure.whole
    if structure.groups.shape[1] == 1 or probe.separate(structure.labels):
        return False
    wanted = getattr(cell, "jacobian", "auto") if wanted == "auto" else wanted
    if wanted not in ("auto", "quasi"):
        raise InputError(_wrong(cell, wanted))
    _found[cell][_key(wanted, layout, h)] = _find(cell, wanted, layout, probe, structure.labels)
    return True


def _key(wanted: str, layout: Layout, h: Sequence[Tensor]) -> object:
    return wanted, layout.spec, layout.shapes, h[0].device


def _wrong(cell: Cell, stated: str) -> str:
    return (
        f"The Jacobian of {type(cell).__name__} is stated to be {stated!r}, and is not: numbers of the state act on "
        "others than that allows. Leave `jacobian` at 'auto' to have it found, or take 'quasi' to approximate it."
    )


def _find(cell: Cell, wanted: str, layout: Layout, probe: _Probe, least: Tensor | None = None) -> Structure:
    each, channel = torch.arange(layout.total), _channels(layout)
    if wanted == "quasi":
        whole = _find(cell, "auto", layout, probe, least)
        return whole if _contains(channel, whole.labels) else Structure.of(layout, channel, whole)
    if wanted == "dense":
        return Structure.of(layout, torch.zeros_like(each))
    stated = {"diagonal": each, "block": channel}
    if wanted in stated:
        if not probe.separate(stated[wanted]):
            raise InputError(_wrong(cell, wanted))
        return Structure.of(layout, stated[wanted])
    if wanted != "auto":
        raise InputError(f"`jacobian` of {type(cell).__name__} is {wanted!r}; it takes {', '.join(stated)}, dense.")
    for labels in [each, channel, *_axes(layout)]:
        if (least is None or _contains(labels, least)) and probe.separate(labels):
            return Structure.of(layout, labels)
    if layout.total > LARGEST:
        raise BackendError(
            f"The state of {type(cell).__name__} has {layout.total} numbers that act on each other in no simple "
            "pattern; Newton would need a matrix of that size at every time. Run it with rt.Sequential()."
        )
    return Structure.of(layout, _components(probe.pattern(), least))


def _channels(layout: Layout) -> Tensor:
    """One group for each place of tensors that have equal shapes; else every number by itself."""
    if len(set(layout.shapes)) > 1 or len(layout.shapes) > MOST_STATES:
        return torch.arange(layout.total)
    return torch.arange(layout.sizes[0]).repeat(len(layout.sizes))


def _axes(layout: Layout) -> list[Tensor]:
    """Groups that share their place along the first axes of tensors of equal shape, e.g. the rows of matrices."""
    shape = layout.shapes[0]
    if len(set(layout.shapes)) > 1:
        return []
    counts = [shape[:axes].numel() for axes in range(len(shape) - 1, 0, -1)]
    return [torch.arange(c).repeat_interleave(shape.numel() // c).repeat(len(layout.sizes)) for c in counts]


def _contains(labels: Tensor, finer: Tensor) -> bool:
    """Whether every group of `finer` lies within one of `labels`."""
    low = torch.full((int(finer.max()) + 1,), labels.numel()).scatter_reduce(0, finer, labels, "amin")
    high = torch.full((int(finer.max()) + 1,), -1).scatter_reduce(0, finer, labels, "amax")
    return torch.equal(low, high)


def _components(acts: Tensor, least: Tensor | None) -> Tensor:
    """(N,) the connected group of each number, for `acts` (N, N) bool; groups of `least` stay together."""
    acts = acts | acts.T
    acts.fill_diagonal_(True)
    if least is not None:
        acts |= least.unsqueeze(0) == least.unsqueeze(1)
    labels, before = torch.arange(len(acts)), None
    while before is None or not torch.equal(labels, before):
        before = labels
        labels = torch.where(acts, labels, len(acts)).amin(1)
        labels = labels[labels]
    return torch.unique(labels, return_inverse=True)[1]


class _Probe:
    """Derivatives of a cell's step at P states, in many directions at once."""

    def __init__(self, cell: Cell, layout: Layout, u: Tree, h: Sequence[Tensor]):
        self.cell, self.layout, self.u, self.h = cell, layout, u, list(h)
        self.points = h[0].shape[0]

    def moved(self, directions: Tensor) -> Tensor:
        """directions (M, N) → (M, N) bool: what moves, at any of the states, when those do."""
        count = directions.shape[0]
        u = pytree.tree_map(lambda x: x.repeat(count, *(1,) * (x.dim() - 1)), self.u)
        h = [x.repeat(count, *(1,) * (x.dim() - 1)) for x in self.h]
        v = directions.to(h[0]).repeat_interleave(self.points, 0)
        primal, tangent = push(self.cell, u, self.layout, h, self.layout.leaves(v))
        moved = [
            torch.zeros_like(p, dtype=torch.bool) if t is None else t != 0 for p, t in zip(primal, tangent, strict=True)
        ]
        return self.layout.flat(moved, 1).unflatten(0, (count, self.points)).any(1).cpu()

    def separate(self, labels: Tensor) -> bool:
        """Whether no group acts on another."""
        groups = int(labels.max()) + 1
        if groups == 1:
            return True
        bits = (labels.unsqueeze(0) >> torch.arange(max((groups - 1).bit_length(), 1)).unsqueeze(1)) & 1
        moving = torch.cat([bits, 1 - bits]).bool()
        # Values at random, so that two influences on one number do not cancel.
        values = torch.rand(moving.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        return not (self.moved(values * moving) & ~moving).any()

    def pattern(self, at_once: int = 256) -> Tensor:
        """(N, N) bool, [i, j]: number j acts on number i."""
        total = self.layout.total
        basis = torch.eye(total)
        return torch.cat([self.moved(part) for part in basis.split(at_once)]).T
