"""All that is told of one layer, and of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.lab.look import linear
from ritornello.lab.look.capture import Captured, Solved, recording
from ritornello.lab.look.memories import in_the_texts_time
from ritornello.lab.look.nonlinear import Path
from ritornello.models import LanguageModel
from ritornello.transition import Transition
from ritornello.typing import Tensor

__all__ = ["LONGEST", "WHAT", "Look", "View", "horizon", "horizon_of_weights", "look", "surprise", "view"]

WHAT = ("attention", "norms", "eigenvalues", "gates", "surprise")
LONGEST = 512
"""Tokens that are looked at together: a matrix over pairs of them is kept for every head."""

LARGEST = 512
"""Numbers in the state of a nonlinear cell up to which eigenvalues of its Jacobians are computed."""


@dataclass(eq=False)
class View:
    """What is told of one layer; None where it has no such thing, and then `missing` says why.

    Args:
        index: of the layer, in the order in which they run.
        kind: of the layer.
        state_bytes: of its state after the text.
        attention: (H, T, T), row t over the columns s ≤ t: A of o_t = Σ_s A_ts v_s; of a nonlinear cell ‖∂o_t/∂x_s‖.
        influence: (H, T, T) ‖∂h_t/∂h_s‖ relative to the identity; None of softmax attention.
        horizon: (H,) in tokens, inf where it is beyond the text.
        norms: (H, T) ‖h_t‖.
        eigenvalues: (H, steps, n) of the maps h_{t−1} → h_t, complex.
        gates: by name, (T, ...).
        missing: by name, why there is none.
    """

    index: int
    kind: str
    state_bytes: int
    attention: Tensor | None = None
    influence: Tensor | None = None
    horizon: Tensor | None = None
    norms: Tensor | None = None
    eigenvalues: Tensor | None = None
    gates: dict[str, Tensor] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def radius(self) -> float | None:
        """The largest |eigenvalue|."""
        return None if self.eigenvalues is None else self.eigenvalues.abs().max().item()

    def arrays(self) -> dict[str, Tensor]:
        """All of it by name, real: the last dimension of the eigenvalues is (real, imaginary)."""
        found = {n: getattr(self, n) for n in ("attention", "influence", "horizon", "norms")}
        if self.eigenvalues is not None:
            found["eigenvalues"] = torch.view_as_real(self.eigenvalues)
        found |= {f"gates.{name.replace(' ', '_')}": gate for name, gate in self.gates.items()}
        return {name: t.float().contiguous() for name, t in found.items() if t is not None}


@dataclass(eq=False)
class Look:
    """A model's layers, and how well it saw each token coming.

    Args:
        pieces: the text of each token, T.
        layers: those that were looked at.
        surprise: (T,) bits; NaN for a first token that nothing came before.
    """

    pieces: list[str]
    layers: list[View]
    surprise: Tensor

    def arrays(self) -> dict[str, Tensor]:
        """All of it by name: ``layers.0.attention``, …, ``surprise``."""
        found = {f"layers.{v.index}.{name}": t for v in self.layers for name, t in v.arrays().items()}
        return {**found, "surprise": self.surprise.float().contiguous()}


@torch.no_grad()
def look(model: LanguageModel, ids: Tensor, layer: int | None = None, pieces: Sequence[str] | None = None) -> Look:
    """Let the model read `ids` and tell what its layers did.

    Args:
        model: a language model.
        ids: (1, T) integers, T from 2 to 512.
        layer: only this one, counted from 0 in the order in which they run; all where None.
        pieces: the text of each token, for pictures; the ids where None.

    Raises:
        InputError: too few or too many ids, or no such layer.
    """
    if ids.dim() != 2 or ids.shape[0] != 1:
        raise InputError(f"`ids` is {tuple(ids.shape)}; wanted (1, T): one text at a time.")
    if not 2 <= ids.shape[1] <= LONGEST:
        raise InputError(
            f"The text has {ids.shape[1]} tokens; wanted 2 to {LONGEST}: a matrix over all pairs of them is kept for "
            f"every head. Give {'a longer text' if ids.shape[1] < 2 else 'a part of it'}."
        )
    training = model.training
    model.eval()
    try:
        with recording(model) as captured:
            logits, _ = model(ids)
    finally:
        model.train(training)
    if layer is not None and not 0 <= layer < len(captured):
        raise InputError(f"There is no layer {layer}; this model's are 0 to {len(captured) - 1}, in order of running.")
    chosen = range(len(captured)) if layer is None else [layer]
    views = [view(i, captured[i]) for i in chosen]
    return Look(list(map(str, ids[0].tolist())) if pieces is None else list(pieces), views, surprise(logits, ids)[0])


def surprise(logits: Tensor, ids: Tensor) -> Tensor:
    """−log₂ p(id_t | ids before) (B, T) in bits, from logits (B, T, vocab); NaN for the first id."""
    nats = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return F.pad(nats.view(len(ids), -1) / math.log(2), (1, 0), value=math.nan)


def view(index: int, captured: Captured) -> View:
    """What is told of one run of a layer."""
    made = View(index, captured.layer.kind, captured.state_bytes)
    recurrences = ("norms", "eigenvalues", "gates")
    if captured.attention is not None:
        made.attention = captured.attention
        made.horizon = horizon_of_weights(made.attention)
        made.missing = dict.fromkeys(recurrences, "it is softmax attention, which keeps what it read and has no map")
    elif not captured.solved:
        made.missing = dict.fromkeys(("attention", *recurrences), "it has no recurrence")
    elif captured.solved[0].packed and captured.route is not None:
        _of_transition(made, in_the_texts_time(captured.solved[0], captured.route, captured.length), captured.length)
    elif captured.solved[0].packed or len(captured.solved) > 1:
        reason = "its steps are sorted into several memories, so that its times are not the text's"
        made.missing = dict.fromkeys(("attention", *recurrences), reason)
    elif isinstance(captured.solved[0].recurrence, Transition):
        _of_transition(made, captured.solved[0], captured.length)
    else:
        _of_cell(made, captured.solved[0])
    return made


def _of_transition(made: View, solved: Solved, length: int) -> None:
    t = solved.recurrence
    assert isinstance(t, Transition)
    n = t.length // length  # maps that make one step of time: DeltaProduct's reflections
    last = slice(n - 1, None, n)
    attention = linear.implicit_attention(t, solved.query)[:, last]
    made.attention = attention if n == 1 else torch.linalg.vector_norm(attention.unflatten(-1, (-1, n)), dim=-1)
    made.influence = linear.influence(t)[:, last, last]
    made.horizon = horizon(made.influence)
    made.norms = linear.state_norms(t, solved.state)[:, last]
    made.eigenvalues = linear.eigenvalues(t, n)
    made.gates = linear.gates(t)
    if not made.gates:
        made.missing["gates"] = "its steps have no gates"


def _of_cell(made: View, solved: Solved) -> None:
    path = Path(solved)
    made.attention, made.influence, made.norms = path.sensitivity(), path.influence(), path.state_norms()
    made.horizon = horizon(made.influence)
    made.missing["gates"] = "its step is nonlinear, and its gates are its own"
    if path.after.shape[-1] <= LARGEST:
        made.eigenvalues = path.eigenvalues()
    else:
        made.missing["eigenvalues"] = f"its state has {path.after.shape[-1]:,} numbers, and Jacobians are their square"


def by_lag(matrix: Tensor) -> Tensor:
    """(H, T) the mean of matrix (H, T, T) over all t, at each lag t − s."""
    return torch.stack([matrix.diagonal(-lag, -2, -1).mean(-1) for lag in range(matrix.shape[-1])], -1)


def horizon(influence: Tensor) -> Tensor:
    """(H,) the first lag at which the mean ‖∂h_t/∂h_{t−lag}‖ is below 1/e; inf where none in the text is."""
    below = by_lag(influence) < math.exp(-1)
    return torch.where(below.any(-1), below.int().argmax(-1), math.inf)


def horizon_of_weights(attention: Tensor) -> Tensor:
    """(H,) the steps, this one included, that hold 1 − 1/e of the mean weight: of weights that fall off exponentially,
    the lag at which they are below 1/e of the first."""
    mass = by_lag(attention.abs()).cumsum(-1)
    return (mass < (1 - math.exp(-1)) * mass[:, -1:]).sum(-1) + 1.0
