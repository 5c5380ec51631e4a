"""Finding which numbers of a state act on each other, from the step alone, by its derivatives.

The gradient of Σ w_i f_i(h) is a sum over the numbers i that w weighs; where a number of h acts on none of them, it is
0 exactly, not nearly. So a set of weights in which any two groups are told apart (one weighs, the other does not)
proves, at the states where it is tried, that no group touches another: 2 log₂ G weights are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.errors import BackendError, InputError
from ritornello.method.newton._layout import MOST_STATES, Layout, Structure
from ritornello.typing import Tensor, Tree

__all__ = ["derivatives", "structure_of", "touches"]

LARGEST = 4096
"""Numbers of a state up to which every one is moved by itself; beyond, only what its shape suggests is tried."""

_found: WeakKeyDictionary[Cell, dict[object, Structure]] = WeakKeyDictionary()


def derivatives(cell: Cell, s: Structure, u: Tree, leaves: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """One step of each row and its Jacobian: the state's tensors, with leading (R,), and (R, \\*block_shape).

    The step is run once and recorded. Then the row of every block that the i-th number of its group stands in is one
    product with the Jacobian's transpose: k products tell it all.
    """
    with torch.enable_grad():
        h = [x.detach().requires_grad_() for x in leaves]
        stepped = pytree.tree_leaves(cell.step(u, s.layout.tree(h)))
    new = [y.detach() for y in stepped]
    if s.dense:
        weights = [
            torch.stack([torch.zeros(shape) if c[i] is None else c[i] for c in s.colours]).to(leaves[0])  # type: ignore
            for i, shape in enumerate(s.layout.shapes)
        ]
        weights = [w.unsqueeze(1).expand(-1, *y.shape) for w, y in zip(weights, new, strict=True)]
        rows = s.to_order(pull(stepped, h, weights, many=True), 2).view(
            s.size, -1, *s.state_shape
        )  # [i, row, group, j]
        return new, rows.permute(1, 2, 0, 3)
    rows = [
        s.to_order(pull(stepped, h, [None if c is None else c.to(h[0]) for c in colour]), 1).view(-1, *s.state_shape)
        for colour in s.colours
    ]
    return new, rows[0] if s.size == 1 else torch.stack(rows, 1)


def pull(
    stepped: Sequence[Tensor], h: Sequence[Tensor], weights: Sequence[Tensor | None], many: bool = False
) -> list[Tensor]:
    """Jᵀ w for what was recorded; w is None where it is 0, and has another first dimension where there are `many`."""
    pairs = [
        (y, w if many else w.expand_as(y))
        for y, w in zip(stepped, weights, strict=True)
        if w is not None and y.requires_grad
    ]
    found: Sequence[Tensor | None] = [None] * len(h)
    if pairs:
        outputs, given = zip(*pairs, strict=True)
        found = torch.autograd.grad(
            outputs, list(h), given, retain_graph=True, allow_unused=True, is_grads_batched=many
        )
    lead = [w.shape[:1] for w in weights[:1] if w is not None] if many else [()]
    return [x.new_zeros(*lead[0], *x.shape) if g is None else g for g, x in zip(found, h, strict=True)]


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
    """Derivatives of a cell's step at P states, with many weights at once."""

    def __init__(self, cell: Cell, layout: Layout, u: Tree, h: Sequence[Tensor]):
        self.cell, self.layout, self.u, self.h = cell, layout, u, list(h)
        self.points = h[0].shape[0]

    def touched(self, weights: Tensor) -> Tensor:
        """weights (M, N) → (M, N) bool: on what of the state the weighted sum depends, at any of the states."""
        count = weights.shape[0]
        repeated = pytree.tree_map(lambda x: x.repeat(count, *(1,) * (x.dim() - 1)), (self.u, self.h))
        w = weights.to(self.h[0]).repeat_interleave(self.points, 0)
        with torch.enable_grad():
            h = [x.detach().requires_grad_() for x in repeated[1]]
            stepped = pytree.tree_leaves(self.cell.step(repeated[0], self.layout.tree(h)))
        found = pull(stepped, h, self.layout.leaves(w))
        return (self.layout.flat(found, 1) != 0).unflatten(0, (count, self.points)).any(1).cpu()

    def separate(self, labels: Tensor) -> bool:
        """Whether no group acts on another."""
        groups = int(labels.max()) + 1
        if groups == 1:
            return True
        bits = (labels.unsqueeze(0) >> torch.arange(max((groups - 1).bit_length(), 1)).unsqueeze(1)) & 1
        weighed = torch.cat([bits, 1 - bits]).bool()
        # Weights at random, so that two influences of one number do not cancel.
        weights = torch.rand(weighed.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        return not (self.touched(weights * weighed) & ~weighed).any()

    def pattern(self, at_once: int = 256) -> Tensor:
        """(N, N) bool, [i, j]: number j acts on number i."""
        total = self.layout.total
        basis = torch.eye(total)
        return torch.cat([self.touched(part) for part in basis.split(at_once)])
