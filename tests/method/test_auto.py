"""What Auto chooses, and that it tells why."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello.cells import LSTMCell
from ritornello.method import cost


class Mild(rt.Cell):
    """An element-wise cell that forgets: Newton's method converges in few iterations."""

    def __init__(self, width: int):
        super().__init__()
        self.state_shape = (width,)
        self.weight = torch.nn.Parameter(torch.full((width,), 0.3))

    def step(self, u, h):
        return torch.tanh(self.weight * h + u)


class Chaotic(rt.Cell):
    """A recurrent gain of 4: nothing certifies it."""

    state_shape = (24,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(4 * torch.randn(24, 24) / 24**0.5)

    def step(self, u, h):
        return torch.tanh(h @ self.weight + u)


def test_a_long_element_wise_cell_goes_to_newton_and_a_short_one_to_the_loop():
    cell, x = Mild(16), torch.randn(1, 8192, 16)
    with torch.no_grad():
        y, last, stats = rt.run(cell, x)
        assert stats["method"].startswith("Newton") and stats["certified"]
        assert stats["estimates"]["Newton"] < stats["estimates"]["Sequential"]
        want, want_last, _ = rt.run(cell, x, method=rt.Sequential())
        torch.testing.assert_close(y, want, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(last, want_last, rtol=2e-5, atol=2e-5)
        assert rt.run(cell, x[:, :8]).stats["method"] == "Sequential()"


def test_a_dense_cell_is_not_given_to_newton():
    with torch.no_grad():
        stats = rt.run(Chaotic(), torch.randn(1, 300, 24)).stats
    assert stats["method"] == "Sequential()" and "Newton" not in stats["estimates"]


def test_what_newton_could_not_certify_is_not_given_to_it_again():
    cell, state, u = Mild(8), torch.zeros(1, 8), torch.randn(1, 8192, 8)
    with torch.no_grad():
        assert str(rt.Auto().advise(cell, u, state)[0]).startswith("Newton")
        cost.learn(cell, state, {"iterations": 10, "certified": False})
        assert rt.Auto().advise(cell, u, state)[0] == rt.Sequential()


def test_a_compiler_is_never_started_unasked(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *a, **k: pytest.fail("a compiler was started"))
    with torch.no_grad():
        for length in (100, 3000):
            stats = rt.run(Mild(64), torch.randn(4, length, 64)).stats
            assert "Compiled" not in stats.get("estimates", {})
    found = cost.estimates(cost.Character(5, 320, 64, 1), 4, 3000, False, "cpu")
    assert set(found) == {"Sequential", "Compiled", "Newton"}
    method, _ = rt.Auto(compile=True).advise(Mild(64), torch.randn(4, 3000, 64), torch.zeros(4, 64))
    assert str(method) in ("Compiled(block=16)", str(rt.Newton()))


def test_estimates_grow_with_the_work():
    few = cost.estimates(cost.Character(5, 320, 64, 1), 1, 1000, False, "cpu")
    many = cost.estimates(cost.Character(5, 320, 64, 1), 1, 10_000, False, "cpu")
    train = cost.estimates(cost.Character(5, 320, 64, 1), 1, 1000, True, "cpu")
    assert all(few[name] < many[name] and few[name] < train[name] for name in few)


def test_fused_where_there_is_a_kernel():
    cell = LSTMCell(8, 8)
    with rt.explain() as log:
        stats = rt.run(cell, torch.randn(1, 100, 8)).stats
    assert stats["method"] == "Fused()" and log[0].op == "lstm"


def test_what_compiled_refuses_is_run_by_a_loop(monkeypatch):
    """A gradient that the compiled code could not give; and it says so."""
    monkeypatch.setattr(cost, "estimates", lambda *given: {"Sequential": 2.0, "Newton": 3.0, "Compiled": 1.0})
    hidden = torch.rand(16, requires_grad=True)

    class Closure(Mild):
        def step(self, u, h):
            return torch.tanh(hidden * h + u)

    y, _, stats = rt.run(Closure(16), torch.randn(1, 100, 16), method=rt.Auto(compile=True))
    y.sum().backward()
    assert stats["method"] == "Sequential()" and "closure" in stats["refused"]
    assert hidden.grad is not None and hidden.grad.any()
