"""Compiled blocks: the numbers and gradients of the loop, compiled once, and honest where there is no compiler.

Most tests run the programs uncompiled: compiling one takes ten seconds. Two trace them, one compiles for real.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello.cells import LSTMCell, ParaGRUCell
from ritornello.method import _block, compiled


class Mixed(rt.Cell):
    """A nest of states, an input that is not differentiated, a weight of the drive only, and a frozen one."""

    def __init__(self, width: int, leak: float = 0.9):
        super().__init__()
        self.leak = leak
        self.scale = torch.nn.Parameter(torch.rand(width))
        self.matrix = torch.nn.Parameter(torch.randn(width, width) / width)
        self.frozen = torch.nn.Parameter(torch.rand(width), requires_grad=False)
        self.register_buffer("shift", torch.rand(width))

    def initial_state(self, batch, like):
        zero = like.new_zeros(batch, len(self.frozen), dtype=self.frozen.dtype)
        return {"fast": zero, "slow": (zero.clone(), zero.new_zeros(batch, dtype=torch.long))}

    def drive(self, x):
        return {"x": self.scale * x, "reset": x.sum(-1) > 3}

    def step(self, u, h):
        slow, count = h["slow"]
        fast = torch.tanh(u["x"].to(slow.dtype) + slow @ self.matrix + self.frozen)
        slow = torch.where(u["reset"].unsqueeze(-1), self.shift, self.leak * slow + fast)
        return {"fast": fast, "slow": (slow, count + 1)}

    def read(self, u, h):
        return h["fast"] + h["slow"][0]


class Growing(rt.Cell):
    """h ← h·u: taken once too often it overflows."""

    state_shape = (2,)

    def initial_state(self, batch, like):
        return like.new_ones(batch, 2)

    def step(self, u, h):
        return h * u


class Branching(rt.Cell):
    state_shape = (2,)

    def step(self, u, h):
        return h + u if u.isfinite().all() else h


class Attributes(rt.Cell):
    """Tensors that are no parameters: one of the cell's, one of a part of it that was computed from another."""

    state_shape = (3,)

    def __init__(self):
        super().__init__()
        self.scale, self.source = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
        self.part = torch.nn.Module()
        self.part.shift = self.source * 2

    def step(self, u, h):
        return torch.tanh(self.scale * h + u + self.part.shift)


class Listed(rt.Cell):
    state_shape = (3,)

    def __init__(self):
        super().__init__()
        self.scales = [torch.rand(3, requires_grad=True)]

    def step(self, u, h):
        return torch.tanh(self.scales[0] * h + u)


class Opaque(torch.autograd.Function):
    """The compiler follows the value, and not the gradient."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * x.cos() if float(x.sum()) < 1e9 else grad


class Sine(rt.Cell):
    state_shape = (3,)

    def step(self, u, h):
        return Opaque.apply(h + u)


def loop(run, carry, xs, dim, reverse=False):
    """What PyTorch's scan means."""
    leaves, spec = pytree.tree_flatten(xs)
    order = range(len(leaves[0]))
    found = {}
    for n in reversed(order) if reverse else order:
        carry, found[n] = run(carry, pytree.tree_unflatten([x[n] for x in leaves], spec))
    return carry, pytree.tree_map(lambda *blocks: torch.stack(blocks), *(found[n] for n in order))


@pytest.fixture
def plain(monkeypatch):
    """The programs as Python runs them."""
    monkeypatch.setattr(compiled, "_programs", {})
    monkeypatch.setattr(_block, "scan", loop)
    monkeypatch.setattr(_block.Program, "call", lambda self, function, *given: function(*given))


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(compiled, "_programs", {})


def numbers(cell, x, method, state=None, cu_seqlens=None):
    """Outputs, last state, and the gradients of input, first state and weights."""
    x = x.detach().requires_grad_()
    given = [s for s in pytree.tree_leaves(state) if s.is_floating_point()] if state is not None else []
    y, last, stats = rt.run(cell, x, state, method, cu_seqlens)
    leaves = pytree.tree_leaves(last)
    loss = (y * torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()).sum()
    loss = loss + sum(s.sin().sum() for s in leaves if s.is_floating_point())
    wanted = [x, *given, *(p for p in cell.parameters() if p.requires_grad)]
    return [y, *leaves, *torch.autograd.grad(loss, wanted, allow_unused=True)], stats


def agree(cell, x, tolerance=1e-9, block=4, **given):
    want, _ = numbers(cell, x, rt.Sequential(), **given)
    got, stats = numbers(cell, x, rt.Compiled(block), **given)
    for g, w in zip(got, want, strict=True):
        if w is None:  # what the loop never used: it has no gradient there, here it is zero
            assert g is None or not g.any()
            continue
        assert g.dtype == w.dtype
        torch.testing.assert_close(g, w, rtol=tolerance, atol=tolerance)
    return stats


@pytest.mark.parametrize("length", [0, 1, 4, 5, 11, 16])
def test_every_length_gives_the_numbers_of_the_loop(plain, length):
    cell = Mixed(3).double()
    state = {"fast": torch.randn(2, 3), "slow": (torch.randn(2, 3), torch.tensor([5, 7]))}
    state = pytree.tree_map(lambda s: s.double().requires_grad_() if s.is_floating_point() else s, state)
    stats = agree(cell, torch.randn(2, length, 3, dtype=torch.float64), state=state)
    assert stats["method"] == "Compiled(block=4)"
    assert stats["ran"] == ("step by step: no sequence is longer than 4" if length < 5 else stats["ran"])
    if length > 4:
        assert stats["ran"] == f"{-(-length // 4)} compiled blocks"


@pytest.mark.parametrize("rows", [1, 5])
def test_gradients_by_some_rows_at_a_time(plain, monkeypatch, rows):
    monkeypatch.setattr(_block, "ROWS", rows)
    agree(Mixed(3).double(), torch.randn(2, 11, 3, dtype=torch.float64))


@pytest.mark.parametrize("length", [16, 18])
def test_the_inputs_are_not_copied(plain, monkeypatch, length):
    """A step's inputs lie where `drive` put them: a copy of fresh memory took as long as the steps."""
    cell, x, seen = Growing(), torch.ones(2, length, 2), []

    def call(self, function, *given):
        seen.extend(t.data_ptr() for t in pytree.tree_leaves(given) if isinstance(t, torch.Tensor))
        return function(*given)

    monkeypatch.setattr(_block.Program, "call", call)
    rt.run(cell, x, method=rt.Compiled(4))
    assert x.data_ptr() in seen


def test_packed_sequences(plain):
    ends = torch.tensor([0, 0, 9, 10, 16])
    agree(Mixed(3).double(), torch.randn(1, 18, 3, dtype=torch.float64), cu_seqlens=ends)


@pytest.mark.parametrize("make", [lambda: LSTMCell(6, 8, 2), lambda: ParaGRUCell(8, 8)], ids=["lstm", "para_gru"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_cells_of_ours(plain, make, dtype):
    cell = make().to(dtype)
    width = 6 if isinstance(cell, LSTMCell) else 8
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-9, torch.bfloat16: 2e-2}[dtype]
    agree(cell, torch.randn(2, 13, width).to(dtype), tolerance)


def test_steps_that_fill_the_last_block_do_no_harm(plain):
    """Three more steps of 1e30 would overflow, and an infinite state times no gradient is NaN."""
    x = torch.full((1, 5, 2), 1e30)
    x[:, 1:4] = 1e-20
    agree(Growing(), x, 2e-5)


def test_it_is_compiled_once(fresh, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(_block, "BACKEND", backend)
    with torch.no_grad():
        for length, batch in ((5, 2), (20, 2), (7, 3)):
            rt.run(Mixed(3), torch.randn(batch, length, 3), method=rt.Compiled(2))
    assert len(graphs) == 1  # for all instances, lengths and batches
    for width in (2, 4):  # what is compiled for other sizes is no version of it
        with torch.no_grad():
            rt.run(Mixed(width), torch.randn(2, 5, width), method=rt.Compiled(2))
    assert len(graphs) == 3


@pytest.mark.slow
def test_the_gradients_are_compiled_once(fresh, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(_block, "BACKEND", backend)
    monkeypatch.setattr(_block, "ROWS", 16)  # of which some calls take several
    for length, batch in ((5, 2), (20, 2), (7, 3)):
        agree(Mixed(3).double(), torch.randn(batch, length, 3, dtype=torch.float64), block=2)
    assert len(graphs) == 3  # forward, and two for the gradients
    agree(Mixed(3, leak=0.5).double(), torch.randn(2, 9, 3, dtype=torch.float64), block=2)
    assert len(graphs) == 6  # another constant is another program


def test_without_a_compiler_it_says_so_and_runs_step_by_step(fresh, monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(_block, "BACKEND", backend)
    cell, x = Mixed(3), torch.randn(2, 9, 3)
    want = rt.run(cell, x, method=rt.Sequential())
    with pytest.warns(UserWarning, match="Install a C\\+\\+ compiler"):
        got = rt.run(cell, x, method=rt.Compiled(2))
    torch.testing.assert_close(got.y, want.y)
    assert got.stats["ran"].startswith("Sequential(): no compiler")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        rt.run(cell, x, method=rt.Compiled(2))


def test_bad_input(fresh, monkeypatch):
    monkeypatch.setattr(_block, "BACKEND", "eager")
    x = torch.randn(1, 9, 2)
    with pytest.raises(rt.BackendError, match=r"cannot follow the step of Branching.*Sequential\(\)"):
        rt.run(Branching(), x, method=rt.Compiled(2))
    with pytest.raises(rt.InputError, match="at least 1"):
        rt.Compiled(0)
    with pytest.raises(rt.BackendError, match=r"Compiled\(block=16\) cannot run Decay.*Scan\(\)"):
        rt.layers.find("gla")(4)(torch.randn(1, 3, 4), method=rt.Compiled())


def test_attributes_get_their_gradients(plain):
    x, found = torch.randn(2, 9, 3, dtype=torch.float64), []
    cell = Attributes()
    for method in (rt.Sequential(), rt.Compiled(4)):
        cell.part.shift = cell.source * 2
        y = rt.run(cell, x, method=method).y
        found.append(torch.autograd.grad(y.square().sum(), [cell.scale, cell.source]))
    torch.testing.assert_close(*found)


def test_a_hidden_tensor_that_wants_a_gradient_is_refused(plain):
    cell, x = Listed(), torch.randn(2, 9, 3)
    with pytest.raises(rt.BackendError, match=r"gradient to a tensor that the step of Listed reads.*Sequential\(\)"):
        rt.run(cell, x, method=rt.Compiled(4))
    with torch.no_grad():
        torch.testing.assert_close(*(rt.run(cell, x, method=m).y for m in (rt.Compiled(4), rt.Sequential())))


def test_gradients_that_cannot_be_compiled_say_so_in_a_sentence(fresh, monkeypatch):
    monkeypatch.setattr(_block, "BACKEND", "eager")
    x = torch.randn(1, 9, 3, requires_grad=True)
    y = rt.run(Sine(), x, method=rt.Compiled(2)).y
    with pytest.raises(rt.BackendError, match=r"cannot compile their gradients: .*run it with Sequential\(\)"):
        y.sum().backward()


def test_autocast_does_not_touch_the_steps(plain):
    cell, x = Mixed(3), torch.randn(2, 9, 3)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(
            rt.run(cell, x, method=rt.Compiled(4)).y, rt.run(cell, x, method=rt.Sequential()).y, rtol=1e-5, atol=1e-5
        )


def test_no_graph_of_the_steps_is_kept(plain):
    x = torch.randn(2, 40, 3, requires_grad=True)
    todo, seen = [rt.run(Mixed(3), x, method=rt.Compiled(4)).y.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [n for n, _ in node.next_functions]
    assert len(seen) < 40


@pytest.mark.slow
def test_generated_code_gives_the_numbers_of_the_loop(fresh):
    agree(Mixed(3).double(), torch.randn(2, 11, 3, dtype=torch.float64))
