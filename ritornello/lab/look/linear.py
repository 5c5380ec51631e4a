"""What can be told of a Transition, one step's map of the state: attention, memory, eigenvalues, gates, norms.

All of them take a transition with leading (1, T), as `recording` keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import logsigmoid, pad

from ritornello.transition import (
    MLSTM,
    Block,
    Decay,
    Delta,
    Dense,
    Diagonal,
    Gated,
    LowRank,
    MatrixTransition,
    Selective,
    Softmax,
    Transition,
)
from ritornello.typing import Tensor, Tree

__all__ = ["directions", "eigenvalues", "gates", "implicit_attention", "influence", "state_norms"]

PROBES = 16  # directions that stand for all where there are more
MATRICES = 64  # steps whose matrices' eigenvalues are computed, evenly chosen where there are more
CHANNELS = 1024  # of a diagonal, evenly chosen where there are more
NUMBERS = 2**22  # held at once by probes of long sequences


# --------------------------------------------------------------------------------------------------- implicit attention


def implicit_attention(t: Transition, query: Tree) -> Tensor:
    """A (H, T, T) of o_t = Σ_{s ≤ t} A_ts v_s: what comes out where the values are the identity over time.

    Matrix states and running softmaxes have a signed A for every head. Diagonals have one for every channel: the mean
    of |A| over them stands for all (H = 1). Of blocks and dense maps of a vector it is the `influence`.
    """
    if isinstance(t, MatrixTransition | MLSTM):
        o = _read_identity(t, query, "v", t.v.shape[2])
    elif isinstance(t, Softmax) and t.values.dim() > t.logits.dim():
        o = _read_identity(t, query, "values", *t.logits.shape[2:])
    elif isinstance(t, Block | Dense):
        return influence(t)
    else:
        return _mean_of_channels(t, query)
    return o[0].flatten(1, -2).permute(1, 0, 2)


def _read_identity(t: Any, query: Tree, values: str, *heads: int) -> Tensor:
    wide, steps = t.wide(), t.length
    eye = torch.eye(steps, device=t.lead.device, dtype=wide.lead.dtype)
    probe = replace(wide, **{values: eye.view(1, steps, *(1,) * len(heads), steps).expand(1, steps, *heads, steps)})
    return probe.scan_read(query.to(wide.lead.dtype) if isinstance(query, torch.Tensor) else query, probe.start())[0]


def _mean_of_channels(t: Any, query: Tree) -> Tensor:
    """A sequence for each s, whose values are one at s and zero elsewhere, some of them at a time."""
    t = t.wide()
    steps = t.length
    ones = torch.ones_like(t.lead[:, 0])
    rows = max(1, NUMBERS // (steps * max(1, ones.numel())))
    columns = []
    for times in torch.arange(steps, device=t.lead.device).split(rows):
        here = torch.arange(steps, device=t.lead.device) == times.unsqueeze(1)
        values = here.view(*here.shape, *(1,) * (ones.dim() - 1)) * ones.unsqueeze(1)
        count = len(times)
        probe = _with_values(t.map(lambda x, n=count: x.expand(n, *x.shape[1:])), values)
        asked = query
        if isinstance(t, Selective):
            asked = query[0].expand(count, *query[0].shape[1:]).to(values.dtype), values
        o = probe.scan_read(asked, probe.start())[0]
        columns.append(o.abs().flatten(2).mean(-1))
    return torch.cat(columns).T.unsqueeze(0)


def _with_values(t: Any, values: Tensor) -> Any:
    match t:
        case Selective():
            return replace(t, x=values)
        case Softmax():
            return replace(t, values=values)
        case Gated():
            return Diagonal(torch.sigmoid(-t.gate), torch.sigmoid(t.gate) * values)
        case _:
            return replace(t, b=values)


# --------------------------------------------------------------------------------------------------------------- memory


def influence(t: Transition) -> Tensor:
    """‖∂h_t/∂h_s‖ (H, T, T) for s ≤ t, in the Frobenius norm relative to that of the identity: 1 where s = t.

    Directions are set into the state after step s and carried on by the maps alone. There are as many as the state has
    dimensions, or 16 random orthogonal ones, whose mean is an unbiased estimate of the square.
    """
    silent, start, size = _maps(t)
    carried = start.new_zeros(0, *start.shape[1:])
    rows = []
    for step in silent.unbind():
        carried = torch.cat([step.apply(carried), start])
        rows.append(pad(_norms(carried, size), (0, 0, 0, t.length - len(carried))))
    return (torch.stack(rows) / _norms(start, size)).permute(2, 0, 1)


def _norms(x: Tensor, size: int) -> Tensor:
    """(rows, heads): of the last `size` dimensions together."""
    return torch.linalg.vector_norm(x, dim=tuple(range(-size, 0))).reshape(len(x), -1)


def _maps(t: Any) -> tuple[Any, Tensor, int]:
    """The same maps with nothing added, the directions to follow, and how many dimensions of the state one head has."""
    t = _decays(t.wide())
    if isinstance(t, MatrixTransition):
        columns = directions(t.k.shape[-1], t.v)
        start = columns.T.expand(1, t.v.shape[2], -1, -1)
        return t.with_values(t.v.new_zeros(*t.v.shape[:-1], len(columns))), start, 2
    if isinstance(t, Dense):
        columns = directions(t.matrix.shape[-1], t.matrix)
        start = columns.T.expand(1, *t.matrix.shape[2:-2], -1, -1)
        return Dense(t.matrix, t.matrix.new_zeros(*t.matrix.shape[:-1], len(columns))), start, 2
    if isinstance(t, Block):
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, t.b.shape[2:], generator=generator).to(t.b) * 2 - 1
        return replace(t, b=torch.zeros_like(t.b)), signs.unsqueeze(0), t.b.dim() - 2
    a = _evenly(t.a.flatten(2), CHANNELS, 2)
    return Diagonal(a, torch.zeros_like(a)), torch.ones_like(a[:, 0]), 1


def _decays(t: Any) -> Any:
    """A softmax's or mLSTM's decay, a gate's and Mamba's as a Decay or Diagonal of the memory; others as they are."""
    match t:
        case MLSTM():
            return Decay(t.k, t.v, logsigmoid(t.f))
        case Softmax():
            a = torch.ones_like(t.logits) if t.log_decay is None else t.log_decay.exp().expand_as(t.logits)
            return Diagonal(a, torch.zeros_like(a))
        case Selective():
            ones = t.x.new_ones(*t.x.shape, t.A.shape[-1])
            a = replace(t, x=torch.zeros_like(t.x)).apply(ones)
            return Diagonal(a, torch.zeros_like(a))
        case Gated():
            return t.as_element()
        case _:
            return t


def directions(size: int, like: Tensor, most: int = PROBES) -> Tensor:
    """(R, size) rows G with E[GᵀG] = I: the identity, or `most` random orthogonal ones where there would be more."""
    if size <= most:
        return torch.eye(size, dtype=like.dtype, device=like.device)
    noise = torch.randn(size, most, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(noise)[0].T.mul((size / most) ** 0.5).to(like)


def _evenly(x: Tensor, most: int, dim: int) -> Tensor:
    size = x.shape[dim]
    if size <= most:
        return x
    return x.index_select(dim, torch.linspace(0, size - 1, most, device=x.device).round().long())


# ---------------------------------------------------------------------------------------------------------- eigenvalues


def eigenvalues(t: Transition, substeps: int = 1) -> Tensor:
    """The eigenvalues (H, steps, n) of the maps of the state, complex.

    Those of decays and diagonals are their entries (H = 1 for a diagonal's channels, at most 1024 evenly chosen); of
    matrices they are computed at no more than 64 steps, evenly chosen. With `substeps` n, n maps make one step.
    """
    t = _decays(t.wide())
    if isinstance(t, Diagonal):
        return _complex(_evenly(t.a.flatten(2), CHANNELS, 2))
    chosen = _evenly(torch.arange(t.length // substeps, device=t.lead.device), MATRICES, 0) * substeps
    steps: list[Any] = [t.map(lambda x, i=i: x[:, chosen + i]) for i in range(substeps)]
    if isinstance(t, Decay):
        d = torch.stack([_decay_of(step) for step in steps]).prod(0)[0]
        return _complex(d.transpose(0, 1))
    if isinstance(t, MatrixTransition):
        matrices = [step.as_element().matrix[0].transpose(0, 1) for step in steps]  # (H, steps, K, K)
    elif isinstance(t, Block):
        a = t.map(lambda x: x[:, chosen]).a  # (1, steps, n, n, D)
        return torch.linalg.eigvals(_evenly(a, CHANNELS, 4).movedim(-1, -3))[0].flatten(1).unsqueeze(0)
    else:
        matrices = [step.matrix[0].flatten(1, -3).transpose(0, 1) for step in steps]
        matrices = [m if m.dim() == 4 else m.unsqueeze(0) for m in matrices]
    whole = matrices[0]
    for later in matrices[1:]:
        whole = later @ whole
    return torch.linalg.eigvals(whole)


def _complex(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.complex64))


def _decay_of(t: Any) -> Tensor:
    """(1, T, H, K or 1) the factor of the state's rows; ones where there is none."""
    if t.log_decay is None and t.decay is None:
        return t.v.new_ones(*t.v.shape[:3], 1)
    d = t.decay if t.log_decay is None else t.log_decay.exp()
    return d if d.dim() == 4 else d.unsqueeze(-1)


# ---------------------------------------------------------------------------------------------------------------- gates


def gates(t: Transition) -> dict[str, Tensor]:
    """What each step keeps and writes, by name: (T, heads or channels, ...).

    ``decay`` the factor of the state; ``write`` β of a delta rule, 1 − decay of a gated mean; ``removal`` −a·b of a
    diagonal plus low rank map; ``step`` Δ of Mamba; ``input`` e^i of an mLSTM, as its logarithm.
    """
    found: dict[str, Callable[[], Tensor]] = {}
    match wide := t.wide():
        case MLSTM():
            found = {"decay": lambda: torch.sigmoid(wide.f), "log input": lambda: wide.i}
        case LowRank():
            found = {"decay": lambda: wide.log_decay.exp(), "removal": lambda: -(wide.a * wide.b).sum(-1)}
        case Decay() | Delta():
            if wide.log_decay is not None or wide.decay is not None:
                found["decay"] = lambda: _decay_of(wide)
            if isinstance(wide, Delta):
                found["write"] = lambda: wide.beta
        case Gated():
            found = {"decay": lambda: torch.sigmoid(-wide.gate), "write": lambda: torch.sigmoid(wide.gate)}
        case Selective():
            found = {"decay": lambda: _decays(wide).a, "step": lambda: wide.delta}
        case Diagonal():
            found = {"decay": lambda: wide.a.abs()}
        case Softmax() if wide.log_decay is not None:
            found = {"decay": lambda: wide.log_decay.exp()}  # type: ignore[union-attr]
    return {name: make()[0] for name, make in found.items()}


# ---------------------------------------------------------------------------------------------------------- state norms


def state_norms(t: Transition, state: Tree) -> Tensor:
    """‖h_t‖ (H, T) along the sequence: of every head of a matrix state, of all channels of a vector together.

    Of an mLSTM it is that of the memory C as it is held, relative to the largest exponent so far; of a running softmax
    that of the sums.
    """
    rows = []
    for step in t.wide().unbind():
        state = step.apply(state)
        held = state if isinstance(state, torch.Tensor) else state[0 if isinstance(t, MLSTM) else 1]
        by_head = isinstance(t, MatrixTransition | MLSTM) or (isinstance(t, Softmax) and held.dim() > 2)
        rows.append(torch.linalg.vector_norm(held[0].flatten(1) if by_head else held[0].flatten().unsqueeze(0), dim=-1))
    return torch.stack(rows, 1)
