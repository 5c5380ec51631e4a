"""What the methods cost on a cell: a small model with measured constants, from which `Auto` chooses.

For R sequences of T steps, a state of S numbers, and a step of n operations that write E numbers per sequence:

    Sequential   T (s + n o + R E e)                  calls, then numbers
    Compiled     T/K · b + T R E c                    a block's calls, then numbers
    Newton       f + n g + R T k² S (a + n p) (1 + i)/2    i iterations, blocks of k; the calls are of all times at once
                 f + 2 (n o + R T E e)            a step that is an equation: twice the sweeps of one step, all at once

Training multiplies each by what was measured of its backward pass. The constants of a device stand in `COSTS`; they are
of one thread of an AVX-512 server core (fitted to T from 256 to 16,384 and R·S from 64 to 1,024), and only their ratios
matter. `python -m ritornello.lab.fit_costs` measures them anew, `ritornello bench --methods` times the methods beside
what is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ritornello.cell import Cell
from ritornello.errors import RitornelloError
from ritornello.implicit import ImplicitCell
from ritornello.method._probe import few_rows, unseen
from ritornello.method.newton import Newton
from ritornello.method.newton._layout import Layout
from ritornello.method.newton._run import probe
from ritornello.typing import Tree

__all__ = ["COSTS", "Character", "Costs", "character", "estimates", "learn"]


@dataclass(frozen=True)
class Costs:
    """Seconds, in the order of the module's formulas; the last three multiply when gradients are wanted."""

    # Later fits came to newton_number 5e-8 and newton_training 1.3: no choice of `ritornello bench --methods` changes.
    loop: float = 3.0e-6
    call: float = 1.7e-6
    number: float = 0.7e-9
    block: float = 4.0e-6
    compiled: float = 0.5e-9
    newton: float = 2.0e-3
    newton_call: float = 5.0e-5
    newton_number: float = 20e-9
    newton_work: float = 0.75e-9
    sequential_training: float = 5.0
    compiled_training: float = 4.0
    newton_training: float = 2.2


COSTS = {
    "cpu": Costs(),
    # Not measured: calls dearer, numbers a hundredth. A loop of small kernels loses to any method in parallel.
    "cuda": Costs(6e-6, 6e-6, 7e-12, 3e-5, 5e-12, 8e-3, 2e-4, 2e-10, 7.5e-12),
}


@dataclass
class Character:
    """What is known of a cell: its step's operations, the numbers that they write for one sequence, the size of its
    Jacobian's blocks (None: not for Newton), the iterations that Newton's method took, and whether the step is an
    equation."""

    calls: int
    numbers: float
    state: int
    block: int | None
    iterations: int = 2
    equation: bool = False


_known: WeakKeyDictionary[Cell, dict[object, Character]] = WeakKeyDictionary()


def character(cell: Cell, rows: Tree, state: Tree) -> Character:
    """Looked at once for each kind of state, at a few steps of u (B, T, ...) with T at least 1."""
    key = _kind(state)
    known = _known.setdefault(cell, {})
    if key not in known:
        few, h = few_rows(rows, state)
        counter = _Counter()
        with torch.no_grad(), counter:
            cell.step(few, h)
        size = pytree.tree_leaves(h)[0].shape[0]
        numbers = sum(shape.numel() for shape, _ in key)
        equation = isinstance(cell, ImplicitCell)
        block = 1 if equation else _block_of(cell, rows, state)
        known[key] = Character(counter.calls, counter.numbers / size, numbers, block, equation=equation)
    return known[key]


def _kind(state: Tree) -> tuple[tuple[torch.Size, torch.dtype], ...]:
    return tuple((x.shape[1:], x.dtype) for x in pytree.tree_leaves(state))


def estimates(c: Character, rows: int, length: int, training: bool, device: str, block: int = 16) -> dict[str, float]:
    """Seconds of each method that can be advised."""
    k = COSTS.get(device, COSTS["cpu"])
    sequential = length * (k.loop + c.calls * k.call + rows * c.numbers * k.number)
    compiled = length / block * k.block + length * rows * c.numbers * k.compiled
    found = {
        "Sequential": sequential * (k.sequential_training if training else 1),
        "Compiled": compiled * (k.compiled_training if training else 1),
    }
    if c.equation:
        del found["Compiled"]
        if c.block is not None:
            work = c.calls * k.call + rows * length * c.numbers * k.number
            found["Newton"] = (k.newton + 2 * work) * (k.newton_training if training else 1)
    elif c.block is not None:
        each = rows * length * c.block**2 * c.state * (k.newton_number + c.calls * k.newton_work)
        newton = k.newton + c.calls * k.newton_call + each * (1 + c.iterations) / 2
        found["Newton"] = newton * (k.newton_training if training else 1)
    return found


class _Counter(TorchDispatchMode):
    """Counts the operations under a step, and the numbers that they write."""

    def __init__(self):
        super().__init__()
        self.calls, self.numbers = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        if not func.is_view:
            self.numbers += sum(x.numel() for x in pytree.tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


def _block_of(cell: Cell, rows: Tree, state: Tree) -> int | None:
    """The size of the blocks of the Jacobian, or None where it is dense or cannot be told."""
    try:
        with torch.inference_mode(False), torch.no_grad(), unseen():
            structure = probe(Newton(), cell, Layout.of(type(cell).__name__, state), rows, state)
    except RitornelloError:
        return None
    return None if structure.dense else structure.size


def learn(cell: Cell, state: Tree, stats: dict[str, Any]) -> None:
    """Remember what Newton's method needed; a cell that it could not certify is not given to it again."""
    found = _known[cell][_kind(state)]
    if "iterations" in stats:
        found.iterations = max(found.iterations, stats["iterations"])
        found.block = found.block if stats["certified"] else None
