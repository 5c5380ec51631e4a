"""Newton over time: the numbers and gradients of the loop, for every cell; and a certificate that can say no."""

from __future__ import annotations

import math
import re
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello import cells
from ritornello.lab import newton_study
from ritornello.method.newton import _implicit
from tests.method.newton_cells import SIZE, UNSTABLE, Bound, Tanh, build, explicit, names, numbers, worst

REACH = {torch.float64: 1e-9, torch.float32: 2e-5}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("dtype", REACH)
def test_every_cell_equals_the_loop(name, dtype):
    cell, x = build(name, 150, dtype)
    want, _ = numbers(cell, x, rt.Sequential())
    for method in (rt.Newton(), rt.Newton(window=64)):
        got, stats = numbers(cell, x, method)
        assert worst(got, want) < REACH[dtype]
        assert stats["certified"] or (name in UNSTABLE and (dtype == torch.float32 or method.window)), stats["done"]


@pytest.mark.slow
@pytest.mark.parametrize("name", explicit())
@pytest.mark.parametrize("dtype", REACH)
def test_every_cell_equals_the_loop_over_4096_steps(name, dtype):
    cell, x = build(name, 4096, dtype)
    want, _ = numbers(cell, x, rt.Sequential())
    got, stats = numbers(cell, x, rt.Newton())
    assert worst(got, want) < REACH[dtype]
    assert stats["iterations"] <= 10
    assert stats["certified"] or (name in UNSTABLE and dtype == torch.float32)


@pytest.mark.parametrize("window", [None, 10])
def test_a_cell_written_here(window):
    torch.manual_seed(0)
    cell, x = Bound(), torch.randn(2, 90, SIZE, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential())
    got, stats = numbers(cell, x, rt.Newton(window=window))
    assert worst(got, want) < 1e-9 and stats["certified"]


@pytest.mark.parametrize("make", [Bound, lambda: cells.ParaLSTMCell(SIZE, SIZE).double()], ids=["dense", "block"])
def test_gradients_in_many_pieces_of_time(make, monkeypatch):
    """Long sequences are run back through in stretches and pieces; here as short ones."""
    monkeypatch.setattr(_implicit, "SLAB", 40)
    torch.manual_seed(0)
    cell, x = make(), torch.randn(2, 91, SIZE, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential())
    got, _ = numbers(cell, x, rt.Newton())
    assert worst(got, want) < 1e-9
    ends, state = torch.tensor([0, 7, 7, 60]), cell.initial_state(3, x)
    want, _ = numbers(cell, x[:1], rt.Sequential(), state, cu_seqlens=ends)
    assert worst(numbers(cell, x[:1], rt.Newton(), state, cu_seqlens=ends)[0], want) < 1e-9


PARTS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "relu of tanh": lambda x: torch.relu(torch.tanh(x)),
    "softsign": torch.nn.functional.softsign,
}


class Drawn(rt.Cell):
    """h ← keep · h + φ(mixed(h) + u), and with two states c ← ψ(h + ½ c), h ← h ⊙ c."""

    def __init__(self, first, second, mix, states, keep, gain):
        super().__init__()
        self.first, self.second, self.mix, self.states, self.keep = PARTS[first], PARTS[second], mix, states, keep
        self.weight = torch.nn.Parameter(gain * torch.randn(4, 4, dtype=torch.float64) / 2)

    def initial_state(self, batch, like):
        zeros = tuple(like.new_zeros(batch, 4) for _ in range(self.states))
        return zeros if self.states > 1 else zeros[0]

    def step(self, u, h):
        now = h[0] if self.states > 1 else h
        heads = {"dense": 1, "heads": 2}.get(self.mix)
        if heads is None:
            mixed = now * self.weight[0]
        else:
            blocks = self.weight.view(heads, 4 // heads, -1)[..., : 4 // heads]
            mixed = torch.einsum("hoi,bhi->bho", blocks, now.unflatten(-1, (heads, -1))).flatten(-2)
        new = self.keep * now + (1 - self.keep) * self.first(mixed + u)
        if self.states == 1:
            return new
        c = self.second(new + 0.5 * h[1])
        return new * c, c


@settings(max_examples=25)
@given(
    first=st.sampled_from(sorted(PARTS)),
    second=st.sampled_from(sorted(PARTS)),
    mix=st.sampled_from(["elementwise", "heads", "dense"]),
    states=st.integers(1, 2),
    keep=st.floats(0, 0.9),
    gain=st.floats(0, 1.5),
    length=st.integers(0, 70),
)
def test_drawn_cells(first, second, mix, states, keep, gain, length):
    torch.manual_seed(length)
    cell, x = Drawn(first, second, mix, states, keep, gain), torch.randn(2, length, 4, dtype=torch.float64)
    start = rt.run(cell, x[:, :1]).state
    want, _ = numbers(cell, x, rt.Sequential(), start)
    got, _ = numbers(cell, x, rt.Newton(), start)
    assert worst(got, want) < 1e-9


def test_packed_sequences_with_empty_ones():
    torch.manual_seed(0)
    cell, x = Tanh(4, 0.9), torch.randn(1, 60, 4, dtype=torch.float64)
    ends, state = torch.tensor([0, 3, 3, 40, 55]), torch.randn(4, 4, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential(), state, cu_seqlens=ends)
    for method in (rt.Newton(), rt.Newton(window=16)):
        assert worst(numbers(cell, x, method, state, cu_seqlens=ends)[0], want) < 1e-9


@pytest.mark.parametrize("length", [0, 1, 2])
def test_hardly_any_steps(length):
    cell, x = Tanh(4, 0.9), torch.randn(2, length, 4, dtype=torch.float64)
    assert worst(numbers(cell, x, rt.Newton())[0], numbers(cell, x, rt.Sequential())[0]) < 1e-12


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_layers_masks_and_half_precision(kind):
    torch.manual_seed(0)
    layer, x = rt.layers.catalogue()[kind](16), torch.randn(2, 40, 16)
    mask = torch.rand(2, 40) > 0.3
    for dtype, close in ((torch.float32, 2e-5), (torch.bfloat16, 1e-2)):
        layer, x = layer.to(dtype), x.to(dtype)
        want, last = layer(x, mask=mask, method=rt.Sequential())
        got, state = layer(x, mask=mask, method=rt.Newton())
        assert got.dtype == dtype and (got - want).abs().max() < close
        assert all((state.leaves[n] - last.leaves[n]).abs().max() < close for n in last.leaves)
    with torch.inference_mode():
        assert (layer(x, mask=mask, method=rt.Newton())[0] - want).abs().max() < 1e-2


def test_gradcheck():
    cell, x = Tanh(2, 0.9), torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    state = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, h: rt.run(cell, x, h, rt.Newton())[:2], (x, state))


def test_tensors_that_are_no_parameters_have_gradients_too():
    class Closed(rt.Cell):
        state_shape = (3,)

        def step(self, u, h):
            return torch.tanh(made * h + u)

    grads = []
    for method in (rt.Sequential(), rt.Newton()):
        leaf = torch.full((3,), 0.4, dtype=torch.float64, requires_grad=True)
        made = 2 * leaf
        y = rt.run(Closed(), torch.ones(2, 30, 3, dtype=torch.float64), method=method).y
        grads.append(torch.autograd.grad(y.square().sum(), leaf)[0])
    torch.testing.assert_close(grads[0], grads[1])


# --------------------------------------------------------------------------------------------------- the certificate


@pytest.fixture
def chaos():
    torch.manual_seed(0)
    return Tanh(16, 4.0), torch.randn(2, 512, 16, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"window": 32}, {"damping": 1.0}])
def test_a_chaotic_cell_is_run_step_by_step(chaos, options):
    cell, x = chaos
    with torch.no_grad():
        want = rt.run(cell, x, method=rt.Sequential())
        got = rt.run(cell, x, method=rt.Newton(**options))
    assert (got.y - want.y).abs().max() < 1e-9 and (got.state - want.state).abs().max() < 1e-9
    assert not got.stats["certified"] and got.stats["sequential"] and got.stats["bound"] > 1e-10


def test_a_residual_is_no_certificate(chaos):
    """Left to itself the iteration reaches a residual of rounding, far from the solution; the bound says so."""
    cell, x = chaos
    method = rt.Newton(max_iterations=300, window=256, on_failure="raise")
    with torch.no_grad(), pytest.raises(rt.ConvergenceError) as error:
        rt.run(cell, x[:, :256], method=method)
    told = re.search(r"Tanh over T = 256.* residual of (\S+) and a bound of (\S+) on", str(error.value))
    assert told and float(told[1]) < 1e-11 and float(told[2]) > 1e-2


def test_only_the_window_that_failed_is_run_step_by_step():
    """The middle of the first sequence is chaotic, the rest is not: h is held near 0 by a large input."""
    torch.manual_seed(0)

    class Switched(Tanh):
        def step(self, u, h):
            return torch.tanh(u + u[:, :1].abs().lt(5) * (h @ self.weight.T))

    cell, x = Switched(16, 4.0), torch.full((2, 300, 16), 9.0, dtype=torch.float64)
    x[0, 100:200] = torch.randn(100, 16, dtype=torch.float64)
    want = rt.run(cell, x, method=rt.Sequential())
    got = rt.run(cell, x, method=rt.Newton(window=100))
    assert worst([got.y], [want.y]) < 1e-9
    assert [(f["start"], f["stop"], f["rows"]) for f in got.stats["sequential"]] == [(100, 200, [0])]


def test_sequences_are_certified_one_by_one():
    """A row that is done is not touched again, and comes to the same numbers as alone."""
    torch.manual_seed(0)
    cell, x = Tanh(8, 1.3), torch.randn(3, 200, 8, dtype=torch.float64)
    x[1] *= 5
    alone = [rt.run(cell, x[i : i + 1], method=rt.Newton()) for i in range(3)]
    together = rt.run(cell, x, method=rt.Newton())
    assert together.stats["iterations"] == max(a.stats["iterations"] for a in alone)
    assert len({a.stats["iterations"] for a in alone}) > 1
    torch.testing.assert_close(together.y, torch.cat([a.y for a in alone]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", [{"jacobian": "quasi", "max_iterations": 60}, {"damping": 2.0}, {"window": 50}])
def test_other_ways_to_the_same_numbers(options):
    torch.manual_seed(0)
    cell, x = Tanh(6, 0.8), torch.randn(2, 120, 6, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential())
    got, stats = numbers(cell, x, rt.Newton(**options))
    assert stats["certified"] and worst(got, want) < 1e-9


@pytest.mark.parametrize(("name", "size"), [("IndRNNCell", 128), ("SLSTMCell", 16)])
def test_kinks_within_a_long_memory_are_found_by_shooting(name, size):
    """From plain passes alone these took up to 29 iterations."""
    torch.manual_seed(0)
    cell, x = getattr(cells, name)(size, size).double(), torch.randn(1, 4096, size, dtype=torch.float64)
    with torch.no_grad():
        y, _, stats = rt.run(cell, x, method=rt.Newton(window=1 << 30))
    assert stats["certified"] and stats["iterations"] <= 2 and stats["iterations"] + stats["passes"] <= 10, stats
    assert worst([y[:, -1:]], [rt.run(cell, x, method=rt.Sequential()).y[:, -1:]]) < 1e-9


def test_a_state_that_jumps_is_certified_by_short_windows():
    """The sign of a normalised state: Newton's steps do not turn it over, and passes over a few chunks find it."""
    torch.manual_seed(1)
    cell, x = cells.BilinearCell(6, 6).double(), torch.randn(2, 900, 6, dtype=torch.float64)
    with torch.no_grad():
        y, _, stats = rt.run(cell, x, method=rt.Newton(on_failure="raise"))
    assert stats["certified"] and worst([y], [rt.run(cell, x, method=rt.Sequential()).y]) < 1e-9


def test_iterates_that_are_no_numbers_are_mended():
    """e^h overflows at the first guesses; step by step it never does."""

    class Steep(rt.Cell):
        state_shape = (2,)

        def step(self, u, h):
            return u - 0.5 * torch.tanh(torch.exp(30 * h) * h)

    torch.manual_seed(0)
    x = torch.randn(2, 80, 2)
    want = rt.run(Steep(), x, method=rt.Sequential())
    got = rt.run(Steep(), x, method=rt.Newton())
    assert worst([got.y], [want.y]) < 2e-5


def test_stats_and_explain_tell_what_was_done():
    with rt.explain() as log:
        stats = rt.run(Tanh(5, 0.5), torch.zeros(1, 9, 5, dtype=torch.float64), method=rt.Newton(tol=1e-8)).stats
    assert stats["method"] == "Newton(tol=1e-08)" and stats["jacobian"] == "1 dense of 5×5"
    assert 0 <= stats["residual"] <= stats["bound"] <= 1e-8 and stats["iterations"] >= 1 and stats["windows"] == 1
    assert str(log[-1]).startswith("Tanh: Newton(tol=1e-08) on newton, ")


def test_an_affine_cell_is_a_scan():
    class Leaky(rt.AffineCell):
        def transition(self, u):
            return rt.transition.Diagonal(torch.full_like(u, 0.9), u)

    x = torch.randn(2, 33, 4, dtype=torch.float64)
    assert worst([rt.run(Leaky(), x, method=rt.Newton()).y], [rt.run(Leaky(), x, method=rt.Sequential()).y]) < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        *({"tol": x} for x in (0, "1e-6", True)),
        *({"max_iterations": x} for x in (0, 1.5, "3", True)),
        *({"damping": x} for x in (-1, None, "x", math.inf)),
        *({"window": x} for x in (0, 1.5, "8")),
        {"jacobian": "none"},
        {"on_failure": "no"},
    ],
)
def test_bad_options(options):
    with pytest.raises(rt.InputError, match=f"`{next(iter(options))}` of Newton"):
        rt.Newton(**options)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ["IndRNNCell", "ParaGRUCell", "ParaLSTMCell"])
def test_memory_stays_within_eight_times_the_states(name, gradients):
    """Diagonal and block Jacobians, as PyTorch's allocator counts it: beyond the input, with its gradient."""
    torch.manual_seed(0)
    cell, x = getattr(cells, name)(16, 16), torch.randn(1, 1 << 15, 16)
    with torch.no_grad():
        u, state = cell.drive(x).clone(), cell.initial_state(1, x)
        rt.Newton().solve(cell, u[:, :64], state)

    def call():
        leaf = u.detach().requires_grad_(gradients)
        with torch.set_grad_enabled(gradients):
            states, _ = rt.Newton().solve(cell, leaf, state)
            if gradients:
                loss = sum((s * s.detach()).sum() for s in pytree.tree_leaves(states))
                torch.autograd.grad(loss, [leaf, *cell.parameters()], allow_unused=True)
        return states

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        states = call()
    events = found.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    stored = sum(t.nbytes for t in pytree.tree_leaves(states))
    most = max(accumulate(nbytes for _, nbytes in changes))
    assert stored <= most <= 8 * stored, f"{most / stored:.1f}"


def test_the_study_prints_and_draws(tmp_path, capsys):
    newton_study.main(["--gains", "0.5", "--lengths", "30"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].startswith("| 0.5 | -") and "(" not in lines[2]
    pytest.importorskip("matplotlib")
    newton_study.draw(str(tmp_path / "newton.png"), length=20)
    assert (tmp_path / "newton.png").stat().st_size > 1000


def test_the_exponent_of_a_linear_step():
    cell = newton_study.TanhCell(3, 1.0)
    with torch.no_grad():
        cell.weight.copy_(0.5 * torch.eye(3))
    exponent = newton_study.largest_exponent(cell, torch.zeros(1, 50, 3, dtype=torch.float64))
    assert exponent == pytest.approx(math.log(0.5), abs=1e-6)
