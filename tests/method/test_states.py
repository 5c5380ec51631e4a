"""A state that is not the cell's own is refused with a sentence, by every method alike."""

from __future__ import annotations

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
    with pytest.raises(rt.InputError, match=r"`state_shape` of OfOneSize is 8; wanted .* in a tuple: \(64,\)"):
        rt.run(OfOneSize(), torch.randn(2, 7, 8))
