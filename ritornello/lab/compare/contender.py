"""What is compared: patterns of layers by name, and the models that are made of them, alike in one size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from math import log
from typing import Any

import torch

from ritornello import state as states
from ritornello.errors import InputError, nearest
from ritornello.layers import catalogue
from ritornello.models import ModelConfig, SequenceModel
from ritornello.models.config import as_pattern
from ritornello.models.pattern import parse_pattern
from ritornello.tasks import Task

__all__ = [
    "EQUAL",
    "Sizes",
    "build",
    "check",
    "choose",
    "equal_size",
    "family",
    "measure_sizes",
    "pattern_model",
    "title",
]

EQUAL = ("compute", "parameters", "state")
REFERENCE = {"parameters": "attention", "state": "gated_delta_net"}
"""Whose size at the comparison's width is the target."""

STEP, WIDEST = 8, 8
"""Widths are multiples of STEP, up to WIDEST times the comparison's."""

SIGNED = "negative_eigenvalues=true"


def choose(words: Iterable[str]) -> list[str]:
    """The contenders that are meant: ``all``, a family, a layer, with options and in patterns.

        choose(["lstm", "delta rule", "delta_net:negative_eigenvalues=true", "gla+attention"])

    Raises:
        InputError: a name that is neither a layer nor a family; the nearest are offered.
    """
    found: list[str] = []
    layers = {name: cls for name, cls in catalogue().items() if cls.traits.causal}
    families: dict[str, list[str]] = {}
    for name, cls in layers.items():
        families.setdefault(_key(cls.traits.about.family), []).append(name)
    for word in filter(None, (w.strip() for w in words)):
        if word == "all":
            found += layers
        elif word not in layers and _key(word) in families:
            found += families[_key(word)]
        else:
            for name, _ in _named(word):
                if name not in layers:
                    known = {*layers, *families, "all"}
                    raise InputError(f"There is no layer or family {name!r}. {nearest(name, known)}")
            as_pattern(parse_pattern(word, "+"))
            found.append(word)
    if not found:
        raise InputError("No layers were given. Name some, e.g. --layers lstm,gla, or all.")
    return list(dict.fromkeys(found))


def check(label: str, width: int) -> None:
    """Whether a contender's options are such that it can be built at a width.

    Raises:
        InputError: they are not.
    """
    try:
        with torch.device("meta"):
            pattern_model(label, 2, 2, width, 1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{label!r} of width {width} cannot be built: {error}") from error


def _key(family: str) -> str:
    return family.lower().replace("_", " ").replace("-", " ")


def family(label: str) -> str:
    """The family of a contender; "hybrid" where its layers are of several."""
    families = {catalogue()[name].traits.about.family for name, _ in _named(label)}
    return families.pop() if len(families) == 1 else "hybrid"


def title(label: str) -> str:
    """A contender for a reader: ``delta_net:negative_eigenvalues=true`` is ``delta_net ±``."""
    return label.replace(f":{SIGNED}", " ±").replace("+", " + ")


def build(label: str, task: Task, width: int, depth: int) -> SequenceModel:
    """The model of a contender for a task: `depth` blocks, or its pattern once where that is longer."""
    features = task.inputs if task.float_inputs else None
    return pattern_model(label, 1 if task.float_inputs else task.inputs, task.classes, width, depth, features)


def pattern_model(
    label: str, vocabulary: int, outputs: int, width: int, depth: int, features: int | None = None
) -> SequenceModel:
    """The model of a contender, from its sizes."""
    pattern = parse_pattern(label, "+")
    # the standard deviation that nn.Linear begins with; 0.02 is for widths of a thousand
    std = (3 * width) ** -0.5
    config = ModelConfig(vocabulary, width, pattern, depth=max(depth, len(pattern)), init_std=std)
    return SequenceModel(config, outputs, features)


# ------------------------------------------------------------------------------------------------------- equal in size


@dataclass(frozen=True)
class Sizes:
    """What a model weighs.

    Args:
        width: of its residual stream.
        parameters: all that is trained.
        state_bytes: of one sequence, after one of the training length.
        token_flops: floating-point operations of a training step for each token: 6 for each weight of the blocks and
            the head, and 15 for each number of the state (5 forward, twice that backward), at half the length.
    """

    width: int
    parameters: int
    state_bytes: int
    token_flops: float


def measure_sizes(model: SequenceModel, task: Task) -> Sizes:
    """The sizes of a model for a task."""
    lookup = 0 if task.float_inputs else model.embedding.weight.numel()
    half, whole = (_state_after(model, task, length) for length in (task.train_length // 2, task.train_length))
    numbers = sum(t.numel() for t in half.tensors())
    flops = 6.0 * (model.parameter_count - lookup) + 15.0 * numbers
    return Sizes(model.config.width, model.parameter_count, states.nbytes(whole), flops)


@torch.no_grad()
def _state_after(model: SequenceModel, task: Task, length: int) -> states.State:
    x = torch.zeros(1, length, task.inputs) if task.float_inputs else torch.zeros(1, length, dtype=torch.long)
    state = model.hidden(x)[1]
    return replace(state, leaves={n: leaf for n, leaf in state.leaves.items() if n != "position"})


def equal_size(label: str, task: Task, width: int, depth: int, equal: str) -> tuple[str, int]:
    """The contender, with a window if it needs one, and the width at which it is of the reference's size.

    Compute: the width of the comparison. Parameters, state: the width, among the multiples of 8 up to eight times
    that, whose parameters or bytes of state are nearest to the reference's, found by bisection. A cache that grows
    with the sequence is given a window instead.
    """
    if equal == "compute":
        return label, width
    target = _size(REFERENCE[equal], task, width, depth, equal)
    if equal == "state" and _grows(label):
        return _windowed(label, task, width, depth, target), width
    low, high = 1, WIDEST * max(1, width // STEP)
    while low < high:  # the least multiple that reaches the target
        middle = (low + high) // 2
        if _size(label, task, middle * STEP, depth, equal) < target:
            low = middle + 1
        else:
            high = middle
    candidates = [n * STEP for n in (low - 1, low) if n > 0]
    return label, min(candidates, key=lambda w: abs(log(_size(label, task, w, depth, equal) / target)))


@cache
def _size(label: str, task: Task, width: int, depth: int, equal: str) -> int:
    sizes = measure_sizes(build(label, task, width, depth), task)
    return max(1, sizes.parameters if equal == "parameters" else sizes.state_bytes)


def _grows(label: str) -> bool:
    return any(_lacks_window(word) for word in label.split("+"))


def _lacks_window(word: str) -> bool:
    """Whether a layer's cache grows with the sequence."""
    ((name, options),) = _named(word)
    return catalogue()[name].traits.growth == "linear" and "window" not in options


def _windowed(label: str, task: Task, width: int, depth: int, target: int) -> str:
    """The contender with the window that fills the target."""

    def windowed(steps: int) -> str:
        return "+".join(f"{w}:window={steps}" if _lacks_window(w) else w for w in label.split("+"))

    low, high = 1, task.train_length
    while low < high:
        middle = (low + high) // 2
        if _size(windowed(middle), task, width, depth, "state") < target:
            low = middle + 1
        else:
            high = middle
    return windowed(low)


def _named(label: str) -> list[tuple[str, dict[str, Any]]]:
    """The layers of a contender with their options."""
    return [(entry, {}) if isinstance(entry, str) else entry for entry in parse_pattern(label, "+")]
