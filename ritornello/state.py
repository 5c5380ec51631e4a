"""The state of a recurrence as a value: what a layer has read so far, to be saved, forked, moved and handed on.

A `State` is frozen and is never mutated by the library unless its owner gives it away (``donate=True``). It is a
pytree, so ``torch.func``, ``torch.compile`` and ``torch.utils.checkpoint`` see its tensors.

    y, state = layer(x)
    y2, state2 = layer(x2, state)             # goes on where x ended
    rt.state.save(state2, "after.safetensors")
    two = rt.state.fork(state2, 2)            # every row twice: two continuations of one prefix
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch.utils import _pytree as pytree

from ritornello import _files
from ritornello.errors import CheckpointError, StateError
from ritornello.typing import Tensor

__all__ = [
    "State",
    "check",
    "concat",
    "detach",
    "fork",
    "load",
    "load_with_extra",
    "map_tensors",
    "nbytes",
    "rows",
    "save",
    "to",
    "zeros_like",
]


@dataclass(frozen=True, eq=False)
class State:
    """What one layer, or a model of many, has read.

    Where gradients are recorded it holds on to the graph that made it. Carried from one training step into the next it
    must be cut from that, by `detach`: else the next ``backward()`` runs into what the last one has freed, and PyTorch
    says "Trying to backward through the graph a second time".

    Args:
        kind: the layer's name.
        version: an integer of that layer's layout of its state.
        spec: the sizes that must match for the state to be taken, e.g. ``{"heads": 4, "key_size": 64}``; values of
            JSON, as a file keeps them.
        leaves: named tensors, batch first, always real; or States.
    """

    kind: str
    version: int
    spec: Mapping[str, Any]
    leaves: Mapping[str, Tensor | State]

    def __getitem__(self, name: str) -> Tensor | State:
        return self.leaves[name]

    def tensors(self) -> list[Tensor]:
        """Every tensor of the state, in the order of the leaves."""
        return [t for leaf in self.leaves.values() for t in (leaf.tensors() if isinstance(leaf, State) else [leaf])]

    @property
    def batch(self) -> int:
        """The number of rows; 0 for a state without tensors."""
        tensors = self.tensors()
        return tensors[0].shape[0] if tensors else 0

    def __repr__(self) -> str:
        sizes = "".join(f", {k}={v}" for k, v in self.spec.items())
        leaves = ", ".join(
            f"{name}: {leaf!r}" if isinstance(leaf, State) else f"{name}: {tuple(leaf.shape)}"
            for name, leaf in self.leaves.items()
        )
        return f"State({self.kind!r} v{self.version}{sizes}{leaves and '; '}{leaves})"


def _flatten(state: State):
    context = state.kind, state.version, tuple(state.spec.items()), tuple(state.leaves)
    return list(state.leaves.values()), context


def _unflatten(leaves, context):
    kind, version, spec, names = context
    return State(kind, version, dict(spec), dict(zip(names, leaves, strict=True)))


pytree.register_pytree_node(
    State,
    _flatten,
    _unflatten,
    serialized_type_name="ritornello.State",
    flatten_with_keys_fn=lambda s: ([(pytree.MappingKey(n), v) for n, v in s.leaves.items()], _flatten(s)[1]),  # type: ignore[arg-type]
)


# ---------------------------------------------------------------------------------------------------------- the verbs


def map_tensors(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """A state of the same make whose tensors are `function` of those of `state` (and of `others`, leaf by leaf).

    Raises:
        StateError: one of the others, or a State within it, is of another make.
    """
    _demand(state)
    for other in others:
        check(other, state.kind, state.version, state.spec)
    leaves = {}
    for name, leaf in state.leaves.items():
        theirs: list[Any] = [other.leaves[name] for other in others]
        leaves[name] = map_tensors(function, leaf, *theirs) if isinstance(leaf, State) else function(leaf, *theirs)
    return replace(state, leaves=leaves)


def _demand(state: Any) -> None:
    if not isinstance(state, State):
        bare = isinstance(state, Tensor | tuple | list | dict)
        raise StateError(
            f"`state` is a {type(state).__name__}; wanted a State, as a layer or a model returns it beside the output."
            + " That of a cell is bare tensors, with functions of their own: state.detach()." * bare
        )


def fork(state: State, n: int = 1) -> State:
    """An independent copy in which every row stands `n` times, its copies side by side (row b becomes b·n … b·n + n −
    1)."""
    if isinstance(n, float) or n < 1:
        raise StateError(f"`n` of fork is {n!r}; wanted an integer, 1 or more copies of every row.")
    return map_tensors(lambda t: t.repeat_interleave(n, 0) if n > 1 else t.clone(), state)


def detach(state: State) -> State:
    """The same state, cut from the graph that made it: for truncated backpropagation through time.

        state = None
        for window in windows:
            loss, state = model.loss(window, state=state, return_state=True)
            loss.backward()
            state = rt.state.detach(state)    # else: "Trying to backward through the graph a second time"

    The state of a cell, which `rt.run` returns, is bare tensors: ``state.detach()``.
    """
    return map_tensors(torch.Tensor.detach, state)


def to(state: State, target: torch.device | str | torch.dtype) -> State:
    """The state on another device, or with its floating tensors in another dtype (positions stay integers)."""
    if isinstance(target, torch.dtype):
        return map_tensors(lambda t: t.to(target) if t.is_floating_point() else t, state)
    return map_tensors(lambda t: t.to(target), state)


def rows(state: State, index: int | slice | Sequence[int] | Tensor) -> State:
    """The chosen rows of the batch, in the order of `index`; a slice of them is a view of the same memory."""
    chosen = index if isinstance(index, (slice, Tensor)) else torch.as_tensor(index, dtype=torch.long)
    if isinstance(chosen, Tensor):
        chosen = chosen.reshape(-1)  # one row is a batch as well
    try:
        return map_tensors(lambda t: t[chosen.to(t.device) if isinstance(chosen, Tensor) else chosen], state)
    except IndexError:
        raise StateError(f"`index` is {index}, but the state has {state.batch} rows. Choose among those.") from None


def concat(states: Sequence[State]) -> State:
    """One state with the rows of all, in order. Caches of different length are padded at the end to the longest."""
    if not states:
        raise StateError("concat was given no states; wanted at least one.")

    def join(*parts: Tensor) -> Tensor:
        longest = [max(sizes) for sizes in zip(*(p.shape[1:] for p in parts), strict=True)]
        grown = []
        for p in parts:
            if list(p.shape[1:]) != longest:
                wide = p.new_zeros(p.shape[0], *longest)
                wide[tuple(slice(0, s) for s in p.shape)] = p
                p = wide
            grown.append(p)
        return torch.cat(grown)

    return map_tensors(join, *states)


def zeros_like(state: State) -> State:
    """A state of the same make with every tensor zero. A layer's own start is ``layer.initial_state(batch)``."""
    return map_tensors(torch.zeros_like, state)


def nbytes(state: State) -> int:
    """The memory that the state's tensors take, in bytes."""
    _demand(state)
    return sum(t.numel() * t.element_size() for t in state.tensors())


def check(state: Any, kind: str, version: int, spec: Mapping[str, Any], batch: int | None = None) -> None:
    """Refuse a state of another layer, version, size or batch, with a sentence."""
    if not isinstance(state, State):
        raise StateError(
            f"`state` is a {type(state).__name__}; wanted the State that this layer returned, or None to start."
        )

    def sizes(of: Mapping[str, Any]) -> str:
        return ", ".join(f"{k}={v}" for k, v in of.items())

    advice = "Pass the state that this layer returned, or None to start."
    if state.kind != kind:
        raise StateError(f"`state` is of kind {state.kind!r} ({sizes(state.spec)}); this layer is {kind!r}. {advice}")
    if state.version != version:
        raise StateError(
            f"`state` is of version {state.version} of {kind!r}; this is version {version}, with another layout. "
            "Read the prefix again to make a new one."
        )
    if dict(state.spec) != dict(spec):
        raise StateError(f"`state` of {kind!r} has {sizes(state.spec)}; this layer has {sizes(spec)}. {advice}")
    if batch is not None and state.leaves and state.batch != batch:
        raise StateError(
            f"`state` holds {state.batch} rows; the input has {batch} sequences. Choose rows with rt.state.rows, or "
            "repeat them with rt.state.fork."
        )


# ---------------------------------------------------------------------------------------------------------- in a file


def _outline(state: State) -> dict[str, Any]:
    leaves = {name: _outline(leaf) if isinstance(leaf, State) else None for name, leaf in state.leaves.items()}
    return {"kind": state.kind, "version": state.version, "spec": dict(state.spec), "leaves": leaves}


def _named(state: State, prefix: str = "") -> dict[str, Tensor]:
    named = {}
    for name, leaf in state.leaves.items():
        named |= _named(leaf, f"{prefix}{name}/") if isinstance(leaf, State) else {prefix + name: leaf}
    return named


def _rebuild(outline: dict[str, Any], tensors: Mapping[str, Tensor], prefix: str = "") -> State:
    leaves = {
        name: _rebuild(inner, tensors, f"{prefix}{name}/") if inner is not None else tensors[prefix + name]
        for name, inner in outline["leaves"].items()
    }
    return State(outline["kind"], outline["version"], outline["spec"], leaves)


def save(state: State, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write the state to a safetensors file, bit for bit. `extra` is a JSON value kept beside it.

    The file is replaced as a whole: whatever fails, an older one stays.
    """
    _demand(state)
    if Path(path).is_dir():
        raise StateError(f"`path` is {str(path)!r}, which is a folder. Give the name of a file in it.")
    header = {"ritornello_state": json.dumps(_outline(state)), "extra": json.dumps(extra)}
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in _named(state).items()}
    _files.replace(path, lambda name: save_file(tensors, name, header))


def load(path: str | Path, device: torch.device | str = "cpu") -> State:
    """Read a state that `save` wrote.

    Raises:
        CheckpointError: no such file, not a state, or a truncated one.
    """
    return load_with_extra(path, device)[0]


def load_with_extra(path: str | Path, device: torch.device | str = "cpu") -> tuple[State, Any]:
    """Read a state and the `extra` that was saved beside it; raises as `load` does."""
    if not Path(path).is_file():
        raise CheckpointError(f"There is no file {str(path)!r} to read a state from. Check the path.")
    try:
        with safetensors.safe_open(str(path), "pt", device=str(device)) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is no whole safetensors file ({error}). Save the state again.") from None
    if "ritornello_state" not in header:
        raise CheckpointError(f"{str(path)!r} holds tensors but no state. Give a file that rt.state.save wrote.")
    try:
        state = _rebuild(json.loads(header["ritornello_state"]), tensors)
        extra = json.loads(header.get("extra", "null"))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{str(path)!r} is a tampered state: {error!r}. Save the state again.") from None
    return state, extra
