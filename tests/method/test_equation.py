"""Cells whose step is an equation: solved step by step and at all times together, with a certificate that can say
no."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello import cells
from ritornello.implicit import fixed_point
from tests.method.newton_cells import build, numbers, worst

REACH = {torch.float64: 1e-9, torch.float32: 2e-5}


class Mixed(rt.ImplicitCell):
    """h ← decay ⊙ h + (1 − decay) ⊙ tanh(u + W y + V h_{t−1}), y = h: mixed within a step and between steps."""

    def __init__(self, size: int, within: float, between: float = 0.0):
        super().__init__()
        self.state_shape = (size,)
        self.decay = torch.nn.Parameter(torch.linspace(0.1, 0.9, size, dtype=torch.float64))
        self.within = torch.nn.Parameter(within * torch.randn(size, size, dtype=torch.float64) / size**0.5)
        self.between = torch.nn.Parameter(between * torch.randn(size, size, dtype=torch.float64) / size**0.5)

    def sweep(self, u, y, h, sequence):
        before = sequence.shift(y, h)[0]
        added = (1 - self.decay) * torch.tanh(u + y @ self.within.T + before @ self.between.T)
        decay = self.decay.expand_as(added)
        if sequence.length == 1 and sequence.cu_seqlens is None:
            new = decay[:, 0] * h + added[:, 0]
            return new.unsqueeze(1), new
        return rt.ops.diagonal_scan(decay, added, h, cu_seqlens=sequence.cu_seqlens)


@pytest.fixture
def mixed():
    torch.manual_seed(0)
    return Mixed(6, 0.5, 0.5), torch.randn(2, 50, 6, dtype=torch.float64)


@pytest.fixture
def chaos():
    torch.manual_seed(0)
    cell = Mixed(16, 0.3, 6.0)
    torch.nn.init.constant_(cell.decay, 0.1)
    return cell, torch.randn(2, 60, 16, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"window": 17}, {"damping": 0.5}, {"jacobian": "quasi"}])
def test_together_equals_step_by_step(mixed, options):
    cell, x = mixed
    want, _ = numbers(cell, x, rt.Sequential())
    got, stats = numbers(cell, x, rt.Newton(**options))
    assert worst(got, want) < 1e-9 and stats["certified"] and stats["bound"] <= 1e-10


@pytest.mark.parametrize("dtype", REACH)
@pytest.mark.parametrize("options", [{"rank": 3}, {"mixer": "kronecker"}, {"memory": False}], ids=str)
def test_mixers_of_the_fixed_point_rnn(dtype, options):
    torch.manual_seed(0)
    cell, x = cells.FPRNNCell(6, **options).to(dtype), torch.randn(2, 60, 6, dtype=dtype)
    want, _ = numbers(cell, x, rt.Sequential())
    got, stats = numbers(cell, x, rt.Newton())
    assert worst(got, want) < REACH[dtype] and stats["certified"]


@pytest.mark.slow
def test_4096_steps():
    cell, x = build("FPRNNCell", 4096, torch.float32)
    with torch.no_grad():
        want, got = rt.run(cell, x, method=rt.Sequential()), rt.run(cell, x, method=rt.Newton())
    assert worst([got.y], [want.y]) < 2e-5 and got.stats["certified"] and got.stats["iterations"] <= 16


def test_packed_sequences_with_empty_ones(mixed):
    cell, _ = mixed
    x, ends = torch.randn(1, 60, 6, dtype=torch.float64), torch.tensor([0, 3, 3, 40, 55])
    state = torch.randn(4, 6, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential(), state, cu_seqlens=ends)
    for method in (rt.Newton(), rt.Newton(window=16)):
        assert worst(numbers(cell, x, method, state, cu_seqlens=ends)[0], want) < 1e-9


@pytest.mark.parametrize("method", [rt.Sequential(), rt.Newton()])
def test_gradcheck(method):
    torch.manual_seed(0)
    cell, x = Mixed(2, 0.5, 0.5), torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    state = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    given = x, state, *cell.parameters()  # which it moves in their place
    assert torch.autograd.gradcheck(lambda x, h, *_: rt.run(cell, x, h, method)[:2], given)


def test_forward_derivatives_of_a_step(mixed):
    cell, x = mixed
    h, along = torch.randn(2, 2, 6, dtype=torch.float64)
    moved = torch.func.jvp(lambda h: cell.step(x[:, 0], h), (h,), (along,))[1]
    with torch.no_grad():
        want = (cell.step(x[:, 0], h + 1e-6 * along) - cell.step(x[:, 0], h - 1e-6 * along)) / 2e-6
    assert (moved - want).abs().max() < 1e-8


# --------------------------------------------------------------------------------------------------- the certificate


@pytest.mark.parametrize("options", [{}, {"window": 32}, {"max_iterations": 200}])
def test_chaos_is_run_step_by_step(chaos, options):
    cell, x = chaos
    with torch.no_grad():
        want, got = rt.run(cell, x, method=rt.Sequential()), rt.run(cell, x, method=rt.Newton(**options))
    assert torch.equal(got.y, want.y) and torch.equal(got.state, want.state)
    assert not got.stats["certified"] and got.stats["sequential"] and got.stats["bound"] > 1e-10


def test_the_error_that_a_window_is_handed_counts(chaos):
    """Each of many short windows would pass, and all of them together be off by 1e-5."""
    cell, x = chaos
    with torch.no_grad():
        want, got = rt.run(cell, x, method=rt.Sequential()), rt.run(cell, x, method=rt.Newton(window=5))
    assert (got.y - want.y).abs().max() < 1e-9 and got.stats["sequential"]


def test_a_residual_is_no_certificate(chaos):
    """Of a stretch that sweeps do solve, to the last digits, it is told that the solution cannot be trusted."""
    cell, x = chaos
    with torch.no_grad(), pytest.raises(rt.ConvergenceError, match=r"Mixed.* steps 0 to 44: .*sweeps [12] seq") as e:
        rt.run(cell, x[:, :44], method=rt.Newton(max_iterations=3000, on_failure="raise"))
    residual, bound = (float(str(e.value).split(f"a {what} of ")[1].split()[0]) for what in ("residual", "bound"))
    assert residual < 1e-11 and bound > 1e-10


def test_the_bound_is_the_error():
    """Within a few times, where the error is much larger than rounding."""
    torch.manual_seed(0)
    cell, x = Mixed(8, 0.6, 0.9), torch.randn(3, 60, 8, dtype=torch.float64)
    with torch.no_grad():
        want = rt.run(cell, x, method=rt.Sequential()).y
        for tol in (1e-3, 1e-6):
            y, _, stats = rt.run(cell, x, method=rt.Newton(tol=tol))
            error = ((y - want).abs().amax((1, 2)) / want.abs().amax((1, 2))).max()
            assert stats["certified"] and 0.05 * stats["bound"] < error < 2 * stats["bound"]


def test_only_what_failed_is_run_step_by_step():
    """A large input leaves nothing to iterate over: tanh is flat there."""
    torch.manual_seed(0)
    cell, x = Mixed(8, 0.9), torch.full((1, 60, 8), 40.0, dtype=torch.float64)
    x[0, 20:40] = torch.randn(20, 8, dtype=torch.float64)
    first = torch.zeros(1, 8, dtype=torch.float64)
    want, _ = numbers(cell, x, rt.Sequential(), first)
    got, stats = numbers(cell, x, rt.Newton(window=20, max_iterations=8), first)
    assert worst(got, want) < 1e-9
    assert [(f["stop"], f["rows"]) for f in stats["sequential"]] == [(40, [0])]


# ------------------------------------------------------------------------------------------------------- what is told


def test_what_auto_does(mixed):
    cell, x = mixed
    result = rt.run(cell, x)
    assert result.stats["method"] == "Newton()" and result.stats["certified"]
    assert set(result.stats["estimates"]) == {"Sequential", "Newton"}
    assert rt.run(cell, x[:, :1]).stats == {"method": "Sequential()"}
    assert "Compiled" not in rt.run(cell, x, method=rt.Auto(compile=True)).stats["estimates"]


def test_a_cell_that_was_not_certified_is_run_step_by_step_the_next_time(chaos):
    cell, x = chaos
    with torch.no_grad():
        assert not rt.run(cell, x).stats["certified"]
        assert rt.run(cell, x).stats["method"] == "Sequential()"


@pytest.mark.parametrize("method", [rt.Compiled(), rt.Fused(), rt.Scan()])
def test_methods_that_cannot(mixed, method):
    with pytest.raises(rt.BackendError, match=r"These can: Auto\(\), Sequential\(\), Newton\(\)\.$"):
        rt.run(*mixed, method=method)


def test_jacobians_that_there_are_not(mixed):
    with pytest.raises(rt.InputError, match="Mixed is an equation: what its sweep scans is kept, which is 'quasi'"):
        rt.run(*mixed, method=rt.Newton(jacobian="dense"))


@pytest.mark.parametrize("method", [rt.Sequential(), rt.Newton()])
def test_an_equation_without_a_solution(method):
    class Never(Mixed):
        def sweep(self, u, y, h, sequence):
            return y + 1 + y.square(), h

    with pytest.raises(rt.ConvergenceError, match=r"The step of Never was not solved: after \d+ sweeps \|F\(y\) − y\|"):
        rt.run(Never(3, 0.0), torch.randn(1, 4, 3, dtype=torch.float64), method=method)


# -------------------------------------------------------------------------------------------------------- the solver


def test_rows_are_solved_each_by_itself_and_what_expands_is_solved_too():
    """A linear map of rank 3 that expands: y ← F(y) runs away, the mixing needs four or five sweeps."""
    torch.manual_seed(0)
    low = torch.randn(7, 3, dtype=torch.float64)
    matrix, b = 2 * low @ torch.randn(3, 7, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64)
    want = torch.linalg.solve(torch.eye(7, dtype=torch.float64) - matrix, b.T).T
    both = fixed_point(lambda y: y @ matrix.T + b, torch.zeros_like(b), 1e-13, 40)
    assert (both.y - want).abs().max() < 1e-10 and both.sweeps < 20
    alone = fixed_point(lambda y: y @ matrix.T + b[:1], torch.zeros_like(b[:1]), 1e-13, 40)
    assert (both.y[:1] - alone.y).abs().max() < 1e-12


def test_a_sweep_that_gives_no_numbers_is_left_again():
    """exp overflows from where the first mixtures lead; the best iterate is gone back to."""

    def sweep(y):
        return torch.where(y.abs() > 3, torch.nan, torch.cos(y))

    found = fixed_point(sweep, torch.full((1, 1), 2.9, dtype=torch.float64), 1e-12, 60)
    assert abs(float(found.y) - 0.7390851332151607) < 1e-10


def test_a_step_is_not_given_up_before_it_is_solved():
    """Where nothing but biases drives the implicit layer, its residual lingers above what `step` accepts."""
    torch.manual_seed(159)
    layer = rt.layers.ImplicitSSM(32)
    x = torch.zeros(1, 3, 32)
    with torch.no_grad():
        y = layer(x, method=rt.Sequential())[0]
        want = layer.double()(x.double(), method=rt.Sequential())[0]
    assert (y - want).abs().max() < 1e-4 * want.abs().max()
