"""A step of a model or a layer, recorded: one token after another without the Python between its calls.

    step = RecordedStep(model, ids, state)          # reads them as well: step.y is what the model said
    logits = step(next_ids)

The numbers are those of the calls that were recorded, bit for bit. A layer whose state grows, or which looks at numbers
in Python, is called as it always is, in its place among the recorded calls.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ritornello.errors import InputError, StateError
from ritornello.kernels import registry
from ritornello.kernels.tape import NotRecordable, Tape
from ritornello.layers import Call, Layer
from ritornello.method import Auto
from ritornello.sequence import Sequence
from ritornello.state import State, map_tensors
from ritornello.typing import Tensor

if TYPE_CHECKING:
    from ritornello.models.language_model import LanguageModel
    from ritornello.models.sequence_model import SequenceModel

__all__ = ["RecordedStep", "recordable"]


def recordable(model: nn.Module) -> bool:
    """Whether nobody watches the model's calls, and its weights are where their calls are short: on a CPU."""
    around = _Surroundings.of(model)
    return (
        all(p.device.type == "cpu" for p in model.parameters())
        and not registry.explaining()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
        and around.hold()
    )


class RecordedStep:
    """``step(x) -> y``, one step on from a state that goes on from call to call. No gradients are kept.

    Args:
        model: on a CPU: a language model (x is ids (B, 1) and y the logits (B, vocab) after them), a sequence model, or
            a layer (x is (B, 1, width), y likewise).
        x: the next step of each row; it is read.
        state: of what was read before; it is not changed.
        room: for how many steps at least a state that grows is given memory.

    Attributes:
        y: what the last step gave; the next one writes over it.
        room, left: for how many steps there is memory where a state grows, and how many of them are left
            (without end where none does).
        called: the layers that are called and not played, with the reason.

    Raises:
        InputError: more than one step, or a call beyond the room.
        NotRecordable: the model's own part of a step looks at numbers in Python.
    """

    @torch.no_grad()
    def __init__(self, model: LanguageModel | SequenceModel | Layer, x: Tensor, state: State, room: int = 64):
        if x.dim() < 2 or x.shape[1] != 1:
            raise InputError(f"`x` is {tuple(x.shape)}; wanted one step of each row: (B, 1), or (B, 1, width).")
        self._around = _Surroundings.of(model)
        self.called: dict[str, str] = {}
        self.room, self.left = room, math.inf
        self._tape = Tape()
        self._x = x.clone()
        self._state = map_tensors(torch.clone, state)
        self._parts: dict[int, State | _Called] = {}  # by the identity of a layer's part of that
        self._foreign: set[str] = set()
        call = Call(Sequence.of(x), Auto(), donate=True, entering=self._enter)
        with self._tape.record():
            read = partial(call.enter, model) if isinstance(model, Layer) else partial(model.read, call=call)
            self.y, new = read(self._x, self._state)
            _settle(self._state, new, self._parts)
        self._tape.fold(self._around.tensors)
        self._whole = True  # whether the last step came to its end
        self._carry = call.carry
        self._kept = {k: v for k, v in call.carry.items() if k not in self._foreign}

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if self.left <= 0:
            raise InputError(
                f"This step was recorded with room for {self.room} of them, and all are read. Record another one from "
                "its state(), with more `room`."
            )
        self._x.copy_(x)
        if self.called:
            self._carry.clear()
            self._carry.update(self._kept)
        self.left -= 1
        self._whole = False
        self._tape.play()
        self._whole = True
        return self.y

    def __len__(self) -> int:
        """How many calls a step is."""
        return len(self._tape)

    def holds(self) -> bool:
        """Whether another step would be the same calls: there is room, and weights, threads and backend are as they
        were. A weight's numbers that were changed in place through its ``.data``, past PyTorch's count, are not seen:
        change them under ``torch.no_grad()``."""
        return self.left > 0 and self._whole and self._around.hold()

    def state(self) -> State:
        """What has been read, as a value that stays as it is.

        Raises:
            StateError: the last step did not come to its end.
        """
        if not self._whole:
            raise StateError(
                "The last step was interrupted: some layers have read it and others not. Go on from a state that was "
                "taken or saved before it."
            )
        return self._taken(self._state)

    def _taken(self, state: State) -> State:
        part = self._parts.get(id(state), state)
        if isinstance(part, _Called):
            return part.give()
        leaves = {n: self._taken(leaf) if isinstance(leaf, State) else leaf.clone() for n, leaf in part.leaves.items()}
        return replace(part, leaves=leaves)

    # ------------------------------------------------------------------------------------------------- while recording

    def _enter(self, layer: Any, x: Tensor, state: State, call: Call) -> tuple[Tensor, State]:
        """A layer of the model: recorded, or called where it cannot be."""
        if not isinstance(layer, Layer):
            return layer.advance(x, state, call)
        start, before = len(self._tape), dict(call.carry)
        with self._tape.pause():
            roomy = replace(state, leaves=layer.reserve(state.leaves, self.room))
            given = map_tensors(torch.clone, state)
        try:
            y, new = layer.advance(x, roomy, call)
            _settle(roomy, new)
            self._parts[id(state)] = roomy
            if any(roomy.leaves[name] is not leaf for name, leaf in state.leaves.items()):
                self.left = self.room - 1
        except NotRecordable as reason:
            self._tape.cut(start)
            self.called[layer.kind] = str(reason)
            call.carry.clear()
            call.carry.update(before)
            with self._tape.pause():
                called = _Called(layer, x, given, replace(call, entering=None))
                y = called.advance()
            self._foreign |= call.carry.keys() - before.keys()
            self._parts[id(state)] = called
            self._tape.add(called.play)
        return y, state


class _Called:
    """A layer that is called at every step, with its input and its output in place."""

    def __init__(self, layer: Layer, x: Tensor, state: State, call: Call):
        self._layer, self._x, self._state, self._call = layer, x, state, call
        self._owned = True
        self._y: Any = None

    def advance(self) -> Tensor:
        self._y, self._state = self._layer.advance(self._x, self._state, replace(self._call, donate=self._owned))
        self._owned = True
        return self._y

    def play(self) -> None:
        place = self._y
        place.copy_(self.advance())
        self._y = place

    def give(self) -> State:
        """The state, which from now on is not ours to write to."""
        self._owned = False
        return self._state


def _settle(old: State, new: State, parts: Any = ()) -> None:
    """Write the new state where the old one lies, and record that; those of `parts` have been seen to."""
    leaves: list[tuple[Any, Any]] = [(old.leaves[name], leaf) for name, leaf in new.leaves.items()]
    ours = {b.untyped_storage()._cdata for b, _ in leaves if isinstance(b, torch.Tensor)}
    writes = []
    for before, after in leaves:
        if isinstance(before, State):
            if id(before) not in parts:
                _settle(before, after, parts)
        elif before.shape != after.shape or before.dtype != after.dtype:
            raise NotRecordable("its state grows")
        elif before.data_ptr() != after.data_ptr() or before.stride() != after.stride():
            # A new leaf may be a view of what another one is written to: then it is read first.
            writes.append((before, after.clone() if after.untyped_storage()._cdata in ours else after))
    for before, after in writes:
        before.copy_(after)


_version = operator.attrgetter("_version")


@dataclass(frozen=True)
class _Surroundings:
    """What a recording rests on, and which somebody might change between two steps. Asked at every step, so the loops
    are those of `map`."""

    model: Any
    dicts: list[dict[str, Any]]
    names: list[str]
    children: list[Any]
    hooks: list[Any]
    tensors: list[Tensor]
    places: list[int]
    counting: list[Tensor]  # how often they were written to; those of inference mode do not
    versions: list[int]
    settings: Any

    @staticmethod
    def of(model: Any) -> _Surroundings:
        modules = list(model.modules())
        dicts = [d for m in modules for d in (m._parameters, m._buffers, m._modules)]
        found = [(d, name, child) for d in dicts for name, child in d.items()]
        tensors = [c for _, _, c in found if isinstance(c, torch.Tensor)]
        counting = [t for t in tensors if not t.is_inference()]
        return _Surroundings(
            model,
            dicts=[d for d, _, _ in found],
            names=[name for _, name, _ in found],
            children=[child for _, _, child in found],
            hooks=[hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)],
            tensors=tensors,
            places=list(map(torch.Tensor.data_ptr, tensors)),
            counting=counting,
            versions=list(map(_version, counting)),
            settings=_settings(model),
        )

    def hold(self) -> bool:
        return (
            self.settings == _settings(self.model)
            and all(map(operator.is_, map(dict.get, self.dicts, self.names), self.children))
            and list(map(_version, self.counting)) == self.versions
            and list(map(torch.Tensor.data_ptr, self.tensors)) == self.places
            and not any(self.hooks)
        )


def _settings(model: Any) -> Any:
    """What surrounds a call: the model's mode, the backend, the threads, and whoever changes or watches operators."""
    inference = torch.is_inference_mode_enabled()  # whose tensors are not written outside of it
    modes = torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()
    watched = registry.explaining(), torch.is_autocast_enabled("cpu"), modes
    return model.training, registry.forced(), torch.get_num_threads(), inference, watched
