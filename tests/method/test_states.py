"""A state that is not the cell's own is refused with a sentence, by every method alike."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

import ritornello as rt
from ritornello import cells

METHODS = [None, rt.Sequential(), rt.Fused(), rt.Newton()]


class Leaky(rt.AffineCell):
    def transition(self, u):
        return rt.transition.Diagonal(torch.full_like(u, 0.9), u)


class Unbatched(rt.Cell):
    def initial_state(self, batch, like):
        return like.new_zeros(8)

    def step(self, u, h):
        return torch.tanh(u + h)


def foreign(h: torch.Tensor, c: torch.Tensor) -> dict:
    """States that no LSTM returns, with what is said of them."""
    return {
        "three tensors": ((h, c, c), r"\(8,\) float32, \(8,\) float32, \(8,\) float32\)"),
        "one tensor": (h, r"is \(8,\) float32 for"),
        "a list": ([h, c], r"is \[\(8,\)"),
        "names": ({"h": h, "c": c}, "is {'h'"),
        "a State": (rt.layers.build("lstm", 8)(torch.zeros(2, 3, 8))[1], r"is State\('lstm'"),
        "another width": ((h, c[:, :7]), r"\(8,\) float32, \(7,\) float32\)"),
        "another number of dimensions": ((h, c.unsqueeze(1)), r"\(1, 8\) float32"),
        "float64": ((h, c.double()), "float64"),
        "integers": ((h, c.long()), "int64"),
        "elsewhere": ((h.to("meta"), c.to("meta")), "on meta; that of LSTMCell"),
        "other rows": ((h[:1], c[:1]), r"holds a tensor \(1, 8\); wanted tensors with a leading 2"),
        "no tensor": ((h, [1.0]), "holds a float"),
    }


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("case", foreign(torch.zeros(2, 8), torch.zeros(2, 8)))
def test_a_foreign_state(case: str, method: rt.method.Method | None) -> None:
    cell, x = cells.LSTMCell(8, 8), torch.randn(2, 7, 8)
    state = rt.run(cell, x).state
    given, told = foreign(*state)[case]
    with pytest.raises(rt.StateError, match=told):
        rt.run(cell, x, given, method)
    rt.run(cell, x, state, method)


def test_a_transition_takes_its_state_in_any_real_dtype() -> None:
    cell, x = Leaky(), torch.randn(2, 7, 8)
    state = rt.run(cell, x).state
    for method in (None, rt.Scan(), rt.Sequential()):
        torch.testing.assert_close(rt.run(cell, x, state.double(), method).y, rt.run(cell, x, state, method).y)
        for given in ((state,), state[:, :7], state.cfloat()):
            with pytest.raises(rt.StateError, match=r"Leaky is \(8,\) float32. Pass the state that an earlier run"):
                rt.run(cell, x, given, method)


def test_an_initial_state_without_the_batch() -> None:
    with pytest.raises(rt.StateError, match=r"what initial_state of Unbatched returned holds a tensor \(8,\); wanted"):
        rt.run(Unbatched(), torch.randn(2, 7, 8))


class NoTransition(rt.AffineCell):
    def transition(self, u):
        return u


class OfOneSize(Unbatched):
    state_shape = 8  # type: ignore[assignment]

    def initial_state(self, batch, like):
        return rt.Cell.initial_state(self, batch, like)


def test_what_a_cell_is_to_return_is_said() -> None:
    cell = NoTransition()
    for state in (None, torch.zeros(2, 8)):
        with pytest.raises(
            rt.InputError, match=r"transition\(u\) of NoTransition returned a Tensor; wanted a ritornello"
        ):
            rt.run(cell, torch.randn(2, 7, 8), state)
    for sizes in (8, (8.0,)):
        cell = OfOneSize()
        cell.state_shape = sizes  # type: ignore[assignment]
        with pytest.raises(rt.InputError, match=r"`state_shape` of OfOneSize is .*8.*; wanted .* in a tuple: \(64,\)"):
            rt.run(cell, torch.randn(2, 7, 8))


class Tanh(rt.Cell):
    state_shape = (8,)

    def step(self, u, h):
        return torch.tanh(u + h)


DRIVES = {
    "nothing": (lambda x: None, "returned None, for an x of"),
    "no time": (lambda x: x.mean(1), r"returned \(2, 8\) float32, for an x of"),
    "time first": (lambda x: x.transpose(0, 1), r"returned \(7, 2, 8\) float32, for"),
    "a part without time": (lambda x: (x, x[:, 0]), r"returned \(\(2, 7, 8\) float32, \(2, 8\) float32\), for"),
    "a number": (lambda x: (x, 2.0), r"returned \(\(2, 7, 8\) float32, 2\.0\), for"),
    "no tensors": (lambda x: (), r"returned \(\), for"),
}


@pytest.mark.parametrize("method", [None, rt.Sequential(), rt.Newton(), rt.Compiled(4)], ids=str)
@pytest.mark.parametrize("drive", DRIVES)
def test_what_drives_the_steps(drive: str, method: rt.method.Method | None) -> None:
    make, told = DRIVES[drive]
    cell = type("Driven", (Tanh,), {"drive": lambda self, x: make(x)})()
    with pytest.raises(rt.InputError, match=rf"drive\(x\) of Driven {told}.*\(B, T\) = \(2, 7\)\. Return a tensor"):
        rt.run(cell, torch.randn(2, 7, 8), method=method)


def decay(u):
    return rt.transition.Decay(u.unsqueeze(2), u.unsqueeze(2))


AFFINE = {
    "no time": (
        {"transition": lambda self, u: rt.transition.Diagonal(u[:, 0], u)},
        r"Diagonal\(a: \(2, 8\), b: .*step",
    ),
    "other times": ({"transition": lambda self, u: rt.transition.Diagonal(u[:, :4], u[:, :4])}, r"\(a: \(2, 4, 8\), b"),
    "no query": ({"transition": lambda self, u: decay(u)}, r"query\(u\) of Own returned None, .* \(2, 7, 1, 8\)"),
    "a query without heads": (
        {"transition": lambda self, u: decay(u), "query": lambda self, u: u},
        r"query\(u\) of Own returned \(2, 7, 8\) float32, and the state of its Decay is read by .*k, \(2, 7, 1, 8\)",
    ),
    "no pair for a query": (
        {"transition": lambda self, u: rt.transition.Selective(u, u.exp(), u, -torch.ones(8, 8))},
        r"query\(u\) of Own returned None, and the state of its Selective is read by the pair \(C, x\)",
    ),
    "another state_shape": (
        {"state_shape": (5,)},
        r"initial state of Own is \(5,\) float32 for each sequence, .* Diagonal is \(8,\) float32\. Leave out",
    ),
    "another initial_state": (
        {"initial_state": lambda self, batch, like: (like.new_zeros(batch, 8),)},
        r"initial state of Own is \(\(8,\) float32,\) for each",
    ),
}


@pytest.mark.parametrize("method", [None, rt.Sequential(), rt.Scan(), rt.Compiled(4)], ids=str)
@pytest.mark.parametrize("case", AFFINE)
def test_what_an_affine_cell_makes_of_x(case: str, method: rt.method.Method | None) -> None:
    written, told = AFFINE[case]
    cell = type("Own", (Leaky,), written)()
    with pytest.raises(rt.InputError, match=told):
        rt.run(cell, torch.randn(2, 7, 8), method=method)


def test_from_a_given_state_it_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Leaky):
        def transition(self, u):
            return super().transition(u[:, :4])

    with pytest.raises(rt.InputError, match=r"transition\(u\) of Cut returned .*, for an x of \(B, T\) = \(2, 7\)"):
        rt.run(Cut(), torch.randn(2, 7, 8), torch.zeros(2, 8))
    cell, x, state, looks = Cut(), torch.randn(2, 4, 8), torch.zeros(2, 8), []
    monkeypatch.setattr(importlib.import_module("ritornello._run"), "demand_run", lambda *given: looks.append(given))
    for given, times in ((state, 1), (state, 0), (None, 1), (state, 0)):
        looks.clear()
        rt.run(cell, x, given)
        assert len(looks) == times


SWEEPS = {
    "the outputs alone": (lambda y, h: y, r"returned \(4, 1, 8\) float32, for a guess y of \(4, 1, 8\)"),
    "nothing": (lambda y, h: None, "returned None, for"),
    "other outputs": (lambda y, h: (y[..., :2], h), r"returned outputs \(4, 1, 2\) float32, for"),
    "no outputs": (lambda y, h: (None, h), "returned outputs None, for"),
    "three": (lambda y, h: (y, h, h), r"returned \(\(4, 1, 8\) float32, \(4, 8\) float32, \(4, 8\) float32\), for"),
}


@pytest.mark.parametrize("method", [None, rt.Sequential(), rt.Newton()], ids=str)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_what_a_sweep_returns(sweep: str, method: rt.method.Method | None) -> None:
    make, told = SWEEPS[sweep]
    body = {"state_shape": (8,), "sweep": lambda self, u, y, h, sequence: make(0.5 * torch.tanh(u + y), h)}
    cell = type("Own", (rt.ImplicitCell,), body)()
    with pytest.raises(rt.InputError, match=rf"sweep\(u, y, h, sequence\) of Own {told}.*Return a pair"):
        rt.run(cell, torch.randn(2, 7, 8), method=method)


def test_outputs_that_are_none() -> None:
    for base, name in ((Tanh, r"read\(u, h\)"), (Leaky, r"finish\(u, o\)")):
        cell: Any = type("Silent", (base,), {name.partition("\\")[0]: lambda self, u, found: None})()
        with pytest.raises(rt.InputError, match=f"{name} of Silent returned None; wanted the outputs"):
            rt.run(cell, torch.randn(2, 7, 8))


def test_an_error_within_a_step_stays_what_it_is_and_says_what_the_step_was_given() -> None:
    class Wide(Tanh):
        state_shape = (5,)

    with pytest.raises(RuntimeError, match=r"size of tensor a \(8\) must match the size of tensor b \(5\)") as caught:
        rt.run(Wide(), torch.randn(2, 7, 8))
    (note,) = caught.value.__notes__
    assert note.startswith("The step of Wide was given u = (4, 8) float32 and h = (4, 5) float32: ")
    assert "initial_state or state_shape of Wide" in note
