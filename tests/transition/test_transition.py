"""The algebra of transitions: apply, compose, summarise and scan are one map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello.transition import (
    MLSTM,
    Block,
    Decay,
    Delta,
    Dense,
    Diagonal,
    Gated,
    LowRank,
    Selective,
    Softmax,
    prefixes,
)

B, T, H, HV, K, V, D = 2, 11, 2, 4, 3, 5, 4


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def keys() -> torch.Tensor:
    return torch.nn.functional.normalize(draw(B, T, H, K), dim=-1)


CASES: dict[str, Callable] = {
    "diagonal": lambda: (Diagonal(draw(B, T, D), draw(B, T, D)), None),
    "complex diagonal": lambda: (
        Diagonal(torch.polar(draw(B, T, D).sigmoid(), draw(B, T, D)), draw(B, T, D) + 0j),
        None,
    ),
    "gated": lambda: (Gated(draw(B, T, D), draw(B, T, D)), None),
    "gated positive": lambda: (Gated(draw(B, T, D), draw(B, T, D), "positive"), None),
    "gated tanh": lambda: (Gated(draw(B, T, D), draw(B, T, D), "tanh"), None),
    "gated silu": lambda: (Gated(draw(B, T, D), draw(B, T, D), "silu"), None),
    "block": lambda: (Block(0.6 * draw(B, T, 2, 2, D), draw(B, T, 2, D)), None),
    "dense": lambda: (Dense(0.5 * draw(B, T, D, D), draw(B, T, D)), None),
    "decay": lambda: (Decay(keys(), draw(B, T, HV, V)), draw(B, T, H, K)),
    "scalar decay": lambda: (Decay(keys(), draw(B, T, HV, V), -draw(B, T, HV).abs()), draw(B, T, H, K)),
    "signed decay": lambda: (Decay(keys(), draw(B, T, HV, V), decay=draw(B, T, HV, K).tanh()), draw(B, T, H, K)),
    "bonus": lambda: (
        Decay(keys(), draw(B, T, HV, V), -draw(B, T, HV, K).abs(), bonus=draw(HV, K), scale=1.0),
        draw(B, T, H, K),
    ),
    "delta": lambda: (Delta(keys(), draw(B, T, HV, V), 2 * draw(B, T, HV).sigmoid()), draw(B, T, H, K)),
    "gated delta": lambda: (
        Delta(keys(), draw(B, T, HV, V), draw(B, T, HV).sigmoid(), -draw(B, T, HV).abs()),
        draw(B, T, H, K),
    ),
    "low rank": lambda: (
        LowRank(keys(), draw(B, T, HV, V), -(k := keys()), 0.5 * k, -draw(B, T, HV, K).abs()),
        draw(B, T, H, K),
    ),
    "selective": lambda: (
        Selective(x := draw(B, T, D), draw(B, T, D).exp(), draw(B, T, K), -draw(D, K).exp(), draw(D)),
        (draw(B, T, K), x),
    ),
    "signed selective": lambda: (
        Selective(x := draw(B, T, D), draw(B, T, D).exp(), draw(B, T, K), -draw(D, K).exp(), draw(D), signed=True),
        (draw(B, T, K), x),
    ),
    "softmax": lambda: (Softmax(3 * draw(B, T, H), draw(B, T, H, V), -draw(B, T, H).abs()), None),
    "softmax with a bonus": lambda: (
        Softmax(3 * draw(B, T, H), draw(B, T, H, V), -draw(B, T, H).abs(), bonus=3 * draw(H)),
        None,
    ),
    "mlstm": lambda: (MLSTM(draw(B, T, H, K), draw(B, T, H, V), 3 * draw(B, T, H), draw(B, T, H)), draw(B, T, H, K)),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request):
    torch.manual_seed(1)
    return CASES[request.param]()


def some_state(t):
    if isinstance(t, Softmax):
        return draw(B, H), draw(B, H, V), draw(B, H).exp()
    return pytree.tree_map(torch.randn_like, t.start())


def same(got, want):
    for one, two in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def absolute(t, state):
    """The states of softmax averages and of the mLSTM are defined up to their exponent m."""
    if isinstance(t, Softmax):
        m, u, w = state
        return u * m.exp().unsqueeze(-1), w * m.exp()
    if isinstance(t, MLSTM):
        C, n, m = state
        return C * m.exp()[..., None, None], n * m.exp().unsqueeze(-1)
    return state


def test_steps_composed_are_the_map_of_the_summary(case):
    t, _ = case
    h = some_state(t)
    stepped = h
    for one in t.unbind():
        stepped = one.apply(stepped)
    same(absolute(t, t.summary().apply(h)), absolute(t, stepped))


def test_after_is_composition(case):
    t, _ = case
    if isinstance(t, Selective):
        with pytest.raises(TypeError, match="summary"):
            t.after(t)
        return
    first, second = t.unbind()[:2]
    h = some_state(t)
    composed = second.after(first)
    assert type(composed) is type(t.as_element())
    same(absolute(t, composed.apply(h)), absolute(t, second.apply(first.apply(h))))


def test_a_composition_takes_one_more_step(case):
    t, _ = case
    if isinstance(t, Selective):
        return
    first, second, third = t.unbind()[:3]
    h = some_state(t)
    want = absolute(t, third.apply(second.apply(first.apply(h))))
    same(absolute(t, third.after(second).after(first).apply(h)), want)
    same(absolute(t, third.after(second.after(first)).apply(h)), want)


def test_no_time_is_the_identity(case):
    t, _ = case
    h = some_state(t)
    if not isinstance(t, Selective):
        same(absolute(t, t.map(lambda x: x[:, :0]).summary().apply(h)), absolute(t, h))


def test_scan_read_is_the_loop(case):
    t, query = case
    h = some_state(t)
    want, last = rt.Sequential().solve(t, query, h)
    got, final = t.scan_read(query, h)
    same(got, want)
    same(absolute(t, final), absolute(t, last))


def test_a_scan_is_the_loop(case):
    t, query = case
    h = some_state(t)
    want, last = rt.Sequential().solve(t, query, h)
    got, final = rt.Scan(4).solve(t, query, h)
    same(got, want)
    same(absolute(t, final), absolute(t, last))


def test_masked_steps_are_the_identity(case):
    t, _ = case
    valid = torch.rand(B, T) > 0.5
    looped = masked = some_state(t)
    for one, keep in zip(t.unbind(), valid.unbind(1), strict=True):
        new = one.apply(looped)
        looped = pytree.tree_map(lambda n, o, k=keep: torch.where(k.view(-1, *(1,) * (n.dim() - 1)), n, o), new, looped)
    for one in t.masked(valid).unbind():
        masked = one.apply(masked)
    same(absolute(t, masked), absolute(t, looped))


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_prefixes_of_every_length(length):
    t = Diagonal(draw(B, length, D), draw(B, length, D))
    h0 = draw(B, D)
    same(prefixes(t).apply(h0.unsqueeze(1)), t.scan(h0)[0])


def test_a_matrix_state_is_not_scanned():
    t, _ = CASES["decay"]()
    with pytest.raises(TypeError, match="scan_read"):
        t.scan(t.start())


def test_it_prints_its_shapes_in_one_line():
    shown = repr(Decay(draw(B, T, H, K), draw(B, T, HV, V), scale=0.5))
    assert shown == f"Decay(k: {(B, T, H, K)}, v: {(B, T, HV, V)}, scale=0.5)"
