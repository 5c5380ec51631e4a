"""Newton's method within what surrounds it: a compiled model, a checkpoint, a run within a run, a second derivative."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

import ritornello as rt
from ritornello import cells
from tests.method.newton_cells import SIZE, Tanh, build, explicit, numbers, worst


def test_a_compiled_model_around_it_leaves_it_alone():
    """Traced, it fell into dozens of graphs, which took a minute."""
    torch.manual_seed(0)
    cell, before = Tanh(SIZE, 0.9), torch.nn.Linear(SIZE, SIZE, dtype=torch.float64)
    x, graphs = torch.randn(2, 70, SIZE, dtype=torch.float64), []

    def model(x):
        return rt.run(cell, before(x), method=rt.Newton()).y.square().sum()

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    found = []
    for call in (model, torch.compile(model, backend=backend)):
        leaf = x.clone().requires_grad_()
        found.append(torch.autograd.grad(call(leaf), [leaf, *cell.parameters(), *before.parameters()]))
    torch.testing.assert_close(*found)
    assert len(graphs) <= 4


def test_a_checkpoint_around_it():
    cell, x = Tanh(SIZE, 0.9), torch.randn(2, 70, SIZE, dtype=torch.float64, requires_grad=True)

    def call(x):
        return rt.run(cell, x, method=rt.Newton()).y

    found = [
        torch.autograd.grad(y.square().sum(), [x, *cell.parameters()])
        for y in (call(x), checkpoint.checkpoint(call, x, use_reentrant=False))
    ]
    torch.testing.assert_close(*found, rtol=0, atol=0)


class Nested(rt.Cell):
    """Each step runs another cell over five times."""

    state_shape = (4,)

    def __init__(self):
        super().__init__()
        self.inner = Tanh(4, 0.5)

    def step(self, u, h):
        return rt.run(self.inner, u.unsqueeze(1).expand(-1, 5, -1), h, rt.Newton()).y[:, -1]


class Number(rt.Cell):
    """A state of one number, without dimensions."""

    state_shape = ()

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def step(self, u, h):
        return torch.tanh(u.sum(-1) + self.weight * h)


@pytest.mark.parametrize("make", [Nested, Number])
def test_steps_within_steps_and_states_without_dimensions(make):
    torch.manual_seed(0)
    cell, x = make(), torch.randn(2, 40, 4, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential())
    got, stats = numbers(cell, x, rt.Newton())
    assert stats["certified"] and worst(got, want) < 1e-9


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ParaGRUCell", rt.Newton()),
        ("ParaGRUCell", rt.Compiled(4)),
        ("FPRNNCell", rt.Newton()),
        ("FPRNNCell", rt.Sequential()),
    ],
)
def test_a_second_derivative_is_refused_and_not_dropped(name, method, monkeypatch):
    """With a loss that is linear in the outputs PyTorch's own guard is silent."""
    from ritornello.method import _block

    monkeypatch.setattr(_block, "BACKEND", "eager")
    cell = cells.FPRNNCell(3) if name == "FPRNNCell" else cells.ParaGRUCell(3, 3)
    x = torch.randn(1, 9, 3, requires_grad=True)
    y = rt.run(cell, x, method=method).y
    with pytest.raises(rt.BackendError, match=rf"{name}.* cannot be differentiated again \(create_graph=True\)"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


class Detached(rt.Cell):
    """Each step adds so little that a residual says nothing, and the state before is hidden from derivatives."""

    state_shape = (4,)

    def initial_state(self, batch, like):
        return like.new_ones(batch, 4)

    def step(self, u, h):
        return h.detach() + 1e-7 * u


class PartlyDetached(rt.Cell):
    def initial_state(self, batch, like):
        return like.new_zeros(batch, 4), like.new_ones(batch, 4)

    def step(self, u, h):
        with torch.no_grad():
            mean = 0.999 * h[1] + 0.001 * h[0]
        return torch.tanh(u + 0.5 * h[0] - mean), mean


@pytest.mark.parametrize("cell", [Detached(), PartlyDetached()], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hidden_derivatives_are_not_certified(cell, dtype):
    """The first one was off by 10⁻³ behind a bound of 3·10⁻⁶."""
    x = torch.ones(1, 2000, 4, dtype=dtype, requires_grad=True)
    want, got = rt.run(cell, x, method=rt.Sequential()), rt.run(cell, x, method=rt.Newton())
    assert all(map(torch.equal, pytree.tree_leaves(got.y), pytree.tree_leaves(want.y)))
    assert not got.stats["certified"] and "detach" in got.stats["done"]
    with pytest.raises(rt.ConvergenceError, match=rf"{type(cell).__name__}: the derivatives of its step are not"):
        rt.run(cell, x, method=rt.Newton(on_failure="raise"))


@pytest.mark.parametrize("name", explicit())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_cell_of_the_library_hides_its_derivatives(name, dtype):
    cell, x = build(name, 12, dtype)
    assert rt.run(cell, x, method=rt.Newton()).stats["jacobian"] != "not that of the step"
