"""An affine cell of one's own: step and read-out follow from its transition, and every method runs it."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello.method import _block, compiled


class Memory(rt.AffineCell):
    """A matrix state with a decay, read by a query, and an output that is not zero where the state is."""

    state_shape = (2, 3, 4)

    def __init__(self, bonus: bool = False):
        super().__init__()
        self.bonus = torch.nn.Parameter(torch.rand(2, 3)) if bonus else None
        self.shift = torch.nn.Parameter(torch.randn(8))

    def drive(self, x):
        q, k, v, decay = x.split([6, 6, 8, 2], -1)
        heads = (t.unflatten(-1, (2, -1)) for t in (q, k, v))
        return *heads, torch.nn.functional.logsigmoid(decay)

    def transition(self, u):
        return rt.transition.Decay(u[1], u[2], log_decay=u[3], bonus=self.bonus)

    def query(self, u):
        return u[0]

    def finish(self, u, o):
        return o.flatten(-2) + self.shift


class Leaky(rt.AffineCell):
    def transition(self, u):
        return rt.transition.Diagonal(u.sigmoid(), u)


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    monkeypatch.setattr(compiled, "_programs", {})
    monkeypatch.setattr(_block, "BACKEND", "eager")


def by_hand(cell, x, h):
    """The loop that a reader of the documentation would write."""
    u, states = cell.drive(x), []
    for t in range(x.shape[1]):
        h = cell.step(pytree.tree_map(lambda z, t=t: z[:, t], u), h)
        states.append(h)
    return cell.read(u, torch.stack(states, 1)), h


@pytest.mark.parametrize(("make", "width"), [(Memory, 22), (Leaky, 5)])
@pytest.mark.parametrize(
    "method",
    [rt.Sequential(), rt.Scan(), rt.Chunked(4), rt.Fused(), rt.Newton(), rt.Compiled(4), rt.Auto()],
    ids=lambda m: type(m).__name__,
)
def test_every_method_gives_the_loop_over_step_and_read(make, width, method):
    torch.manual_seed(0)
    cell, x = make().double(), torch.randn(2, 11, width, dtype=torch.float64, requires_grad=True)
    h = torch.randn_like(cell.initial_state(2, x)).requires_grad_()
    inputs, found = [x, h, *cell.parameters()], []
    for y, last in (by_hand(cell, x, h), rt.run(cell, x, h, method)[:2]):
        grads = torch.autograd.grad(y.square().sum() + last.sin().sum(), inputs)
        found.append((y, last, *grads))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [rt.Auto(), rt.Sequential(), rt.Compiled(4)], ids=lambda m: type(m).__name__)
def test_nothing_is_said_beyond_the_last_packed_step(method):
    torch.manual_seed(0)
    cell, cu = Memory(), torch.tensor([0, 7, 7, 9])
    y = rt.run(cell, torch.randn(1, 11, 22), method=method, cu_seqlens=cu).y
    assert y[:, :9].all() and not y[:, 9:].any()


def test_states_do_not_tell_the_output_where_a_bonus_is_read():
    cell, x = Memory(bonus=True), torch.randn(1, 3, 22)
    with pytest.raises(rt.InputError, match=r"Memory reads the state before each step.*rt\.run"):
        by_hand(cell, x, cell.initial_state(1, x))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cell": torch.nn.Linear(5, 5)}, "`cell` is a Linear; wanted a rt.Cell"),
        ({"x": None}, "`x` holds a NoneType"),
        ({"x": [1.0, 2.0]}, "`x` holds a float"),
        ({"state": torch.zeros(3, 5)}, r"a tensor \(3, 5\); wanted tensors with a leading 2"),
        ({"state": [0.0]}, "`state` holds a float"),
    ],
)
def test_what_run_cannot_be_given(given, says):
    with pytest.raises(rt.InputError, match=says):
        rt.run(**{"cell": Leaky(), "x": torch.randn(2, 3, 5), **given})
