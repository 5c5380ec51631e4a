"""What the layers of a model hand to their recurrences while it reads: transitions, cells, attention weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.layers import Call, Layer
from ritornello.layers.parts.routing import NOTED, Route
from ritornello.method import Method
from ritornello.method.base import Recurrence
from ritornello.transition import Transition
from ritornello.typing import Tensor, Tree

__all__ = ["Captured", "Solved", "recording"]


@dataclass(frozen=True, eq=False)
class Solved:
    """One recurrence as a layer handed it to its method.

    Args:
        recurrence: the Transition, or the Cell that is not affine.
        query: what reads the transition's state; what drives the cell's steps.
        state: before the first step.
        x: what the cell was given, of which the query is made; None of a bare transition.
        packed: its steps were sorted into sequences of their own, so that its times are not the text's.
    """

    recurrence: Recurrence
    query: Tree
    state: Tree
    x: Tree = None
    packed: bool = False


@dataclass(eq=False)
class Captured:
    """One run of a layer.

    Args:
        name: of the layer in the model, e.g. ``backbone.blocks.0.mixer``.
        layer: itself.
        length: T.
        solved: its recurrences, in the order in which they ran.
        attention: (H, T, T) weights of softmax attention, where the layer is that.
        state_bytes: of its state after the text.
        route: the decisions of its router, where it has one.
    """

    name: str
    layer: Layer
    length: int = 0
    solved: list[Solved] = field(default_factory=list)
    attention: Tensor | None = None
    state_bytes: int = 0
    route: Route | None = None


@dataclass(frozen=True, eq=False)
class _Recording(Method):
    """Run as another method does, and keep what was run."""

    method: Method
    solved: list[Solved]
    inputs: Mapping[int, Tree]

    def refusal(self, recurrence: Recurrence) -> str | None:
        return self.method.refusal(recurrence)

    def _solve_transition(self, t: Transition, query: Tree, state: Tree, cu_seqlens: Tensor | None):
        self.solved.append(Solved(t, query, state, packed=cu_seqlens is not None))
        return self.method.solution(t, query, state, cu_seqlens)

    def _solve_cell(self, cell: Cell, u: Tree, state: Tree, cu_seqlens: Tensor | None):
        self.solved.append(Solved(cell, u, state, self.inputs.get(id(cell)), cu_seqlens is not None))
        return self.method.solution(cell, u, state, cu_seqlens)


class _Weights(TorchFunctionMode):
    """Every call of softmax attention is run once more, on the identity for values: what comes out are its weights."""

    def __init__(self):
        super().__init__()
        self.blocks: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            q, k, v, *rest = args
            eye = torch.eye(k.shape[-2], dtype=v.dtype, device=v.device).expand(*v.shape[:-1], -1)
            self.blocks.append(function(q, k, eye, *rest, **kwargs))
        return function(*args, **kwargs)

    def matrix(self, length: int, window: int | None) -> Tensor | None:
        """(H, T, T) from blocks of queries, whose keys begin at the first step, or `window` − 1 before the block."""
        if not self.blocks:
            return None
        whole = self.blocks[0].new_zeros(self.blocks[0].shape[1], length, length)
        begin = 0
        for block in self.blocks:
            rows, columns = block.shape[-2:]
            first = 0 if window is None else begin - window + 1
            used = slice(max(0, -first), min(columns, length - first))
            whole[:, begin : begin + rows, max(0, first) : first + used.stop] = block[0, :, :, used]
            begin += rows
        return whole


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Captured]]:
    """Inside, what every mixer of `model` runs is kept in the list, in the order in which they run.

        with torch.no_grad(), recording(model) as layers:
            model(ids)                                          # (1, T): one sequence
        layers[0].solved[0].recurrence                          # a Transition with leading (1, T), or a Cell

    A layer of a `Repeat` is there once for each of its runs. Feed-forwards are left out.
    """
    captured: list[Captured] = []
    with ExitStack() as stack:
        for name, layer in _mixers(model):
            stack.enter_context(_watched(name, layer, captured))
        yield captured


def _mixers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """The outermost layers: what is inside a layer is its own."""
    if isinstance(module, Layer):
        if module.traits.role == "mixer":
            yield prefix, module
        return
    for name, child in module.named_children():
        yield from _mixers(child, f"{prefix}.{name}" if prefix else name)


@contextmanager
def _watched(name: str, layer: Layer, captured: list[Captured]) -> Iterator[None]:
    inputs: dict[int, Tree] = {}
    cells = [cell for cell in layer.modules() if isinstance(cell, Cell)]
    mix = layer.mix

    def watched_mix(x: Tensor, state: Mapping[str, Any], call: Call):
        one = Captured(name, layer, x.shape[1])
        captured.append(one)
        if layer.traits.growth in ("constant", "log"):  # the others are attention, which takes no other method
            call = replace(call, method=_Recording(call.method, one.solved, inputs))
        routes = call.carry.setdefault(NOTED, [])
        before = len(routes)
        with _Weights() as weights:
            y, new = mix(x, state, call)
        one.route = routes[before] if len(routes) > before else None
        one.attention = weights.matrix(x.shape[1], getattr(layer, "window", None))
        one.state_bytes = sum(t.numel() * t.element_size() for t in pytree.tree_leaves(dict(new)))
        return y, new

    # On the instances, where they hide the class's for the time being.
    layer.mix = watched_mix
    for cell in cells:
        cell.drive = _watched_drive(cell, inputs)
    try:
        yield
    finally:
        del layer.mix
        for cell in cells:
            del cell.drive


def _watched_drive(cell: Cell, inputs: dict[int, Tree]):
    drive = cell.drive

    def watched(x: Tree) -> Tree:
        inputs[id(cell)] = x
        return drive(x)

    return watched
