"""Methods on cells and transitions: the same numbers, the same gradients, and refusals that name a way out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ritornello as rt
from ritornello.transition import Diagonal


class Tanh(rt.Cell):
    """Only `step` and a shape: what a person would write first."""

    state_shape = (4,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(0.5 * torch.randn(4, 4, dtype=torch.float64))

    def step(self, u, h):
        return torch.tanh(u + h @ self.weight)


class Pair(rt.Cell):
    """Pytrees as input, drive and state."""

    def initial_state(self, batch, like):
        return {"fast": like.new_zeros(batch, 3), "slow": like.new_zeros(batch, 3)}

    def drive(self, x):
        return x["a"], x["b"]

    def step(self, u, h):
        a, b = u
        fast = torch.tanh(a + h["slow"])
        return {"fast": fast, "slow": 0.9 * h["slow"] + 0.1 * fast * b}

    def read(self, u, h):
        return h["fast"] + h["slow"]


class Leaky(rt.AffineCell):
    def transition(self, u):
        return Diagonal(torch.full_like(u, 0.9), u)


def test_a_cell_of_ones_own_runs_streams_and_differentiates():
    torch.manual_seed(0)
    cell, x = Tanh(), torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    y, state, stats = rt.run(cell, x)
    h, want = torch.zeros(2, 4, dtype=torch.float64), []
    for t in range(9):
        h = torch.tanh(x[:, t] + h @ cell.weight)
        want.append(h)
    torch.testing.assert_close(y, torch.stack(want, 1))
    torch.testing.assert_close(state, h)
    assert stats["method"] == "Sequential()"
    first = rt.run(cell, x[:, :4])
    second = rt.run(cell, x[:, 4:], first.state)
    torch.testing.assert_close(torch.cat([first.y, second.y], 1), y)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(Wrapped(cell), {"cell.weight": w}, (x,)), (x, cell.weight)
    )


class Wrapped(torch.nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        return rt.run(self.cell, x).y


def test_pytrees_and_packing():
    x = {"a": torch.randn(1, 10, 3), "b": torch.randn(1, 10, 3)}
    ends = torch.tensor([0, 3, 3, 8])
    y, state, _ = rt.run(Pair(), x, cu_seqlens=ends)
    assert not y[:, 8:].any()
    for row, (a, b) in enumerate([(0, 3), (3, 3), (3, 8)]):
        want = rt.run(Pair(), {n: t[:, a:b] for n, t in x.items()})
        torch.testing.assert_close(y[:, a:b], want.y)
        torch.testing.assert_close(state["slow"][row : row + 1], want.state["slow"])


def test_an_affine_cell_has_a_step_and_every_method():
    cell, x = Leaky(), torch.randn(2, 13, 3, dtype=torch.float64)
    want = rt.run(cell, x, method=rt.Sequential())
    torch.testing.assert_close(cell.step(x[:, 0], torch.ones(2, 3, dtype=torch.float64)), 0.9 + x[:, 0])
    for method in (rt.Auto(), rt.Scan(), rt.Chunked(4), rt.Fused()):
        got = rt.run(cell, x, method=method)
        torch.testing.assert_close(got.y, want.y)
        torch.testing.assert_close(got.state, want.state)


@given(length=st.integers(0, 40), size=st.integers(1, 50), cut=st.integers(0, 40))
def test_any_length_any_chunk(length, size, cut):
    torch.manual_seed(length)
    x = torch.randn(2, length, 3, dtype=torch.float64)
    want = rt.run(Leaky(), x, method=rt.Sequential())
    for method in (rt.Scan(size), rt.Chunked(size)):
        first = rt.run(Leaky(), x[:, :cut], method=method)
        second = rt.run(Leaky(), x[:, cut:], first.state, method=method)
        torch.testing.assert_close(torch.cat([first.y, second.y], 1), want.y)
        torch.testing.assert_close(second.state, want.state)


@pytest.mark.parametrize("method", [rt.Scan(), rt.Chunked(), rt.Fused()])
def test_a_method_that_cannot_run_names_those_that_can(method):
    with pytest.raises(rt.BackendError, match=r"Tanh.*Auto\(\), Sequential\(\)"):
        rt.run(Tanh(), torch.zeros(1, 3, 4, dtype=torch.float64), method=method)


def test_bad_input_of_run():
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    with pytest.raises(rt.InputError, match=r"rt\.Fused"):
        rt.run(Tanh(), x, method="scan")
    with pytest.raises(rt.InputError, match=r"\(B, T\)"):
        rt.run(Tanh(), x[0, 0])
    for method, option in ((rt.Chunked, "size"), (rt.Scan, "segment"), (rt.Compiled, "block")):
        for value in (0, 1.5, "16", None, True):
            with pytest.raises(rt.InputError, match=f"`{option}` of {method.__name__} is {value!r}.*at least 1"):
                method(value)
    with pytest.raises(rt.InputError, match="`compile` of Auto is 'yes'"):
        rt.Auto(compile="yes")
    with pytest.raises(NotImplementedError, match="step"):
        rt.run(type("Empty", (rt.Cell,), {"state_shape": (4,)})(), x)


def test_explain_lists_what_ran():
    with rt.explain() as log:
        rt.run(Leaky(), torch.zeros(1, 3, 4), method=rt.Sequential())
        rt.run(Leaky(), torch.zeros(1, 3, 4))
    assert [str(line) for line in log] == [
        "Diagonal: Sequential() on loop",
        f"diagonal_scan: Fused() on {log[1].backend}",
    ]


def test_a_log_inside_a_log_hides_nothing_from_it():
    with rt.explain() as outer:
        rt.run(Leaky(), torch.zeros(1, 3, 4))
        with rt.explain() as inner:
            rt.run(Leaky(), torch.zeros(1, 3, 4))
        rt.run(Leaky(), torch.zeros(1, 3, 4))
    assert len(inner) == 1 and outer == inner * 3


def test_the_loops_backward_is_linear_in_time():
    """Indexing slices of one long tensor would make it quadratic: the graph would hold T slices of T steps."""
    x = torch.zeros(1, 50, 4, dtype=torch.float64, requires_grad=True)
    y = rt.run(Tanh(), x).y
    names, todo, seen = [], [y.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.append(type(node).__name__)
        todo += [n for n, _ in node.next_functions]
    assert names.count("UnbindBackward0") == 1
    assert not {"SelectBackward0", "SliceBackward0"} & set(names)
