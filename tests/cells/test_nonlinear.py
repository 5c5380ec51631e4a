"""The nonlinear cells beyond their equations: third parties' cells, first values, limits, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import ritornello as rt
from ritornello import cells
from ritornello.cells.peephole_lstm import VARIANTS
from ritornello.errors import InputError
from ritornello.testing.subject import close
from tests.oracles.lstm import dense

WIDTH = 6


def moved(cell):
    """The cell in float64, its every weight moved off its first value."""
    torch.manual_seed(0)
    cell = cell.double()
    with torch.no_grad():
        for p in cell.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return cell


def inputs(length=9):
    return torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ third parties' cells

THEIRS = {  # the name of both → our options, and their names of weights that are ours under another one
    "MGUCell": ({}, {}),
    "UGRNNCell": ({}, {}),
    "IndRNNCell": ({"activation": "tanh"}, {"vector_u": "weight_hh"}),
}


@pytest.mark.parametrize("name", THEIRS)
def test_same_numbers_as_torchrecurrent(name) -> None:
    torchrecurrent = pytest.importorskip("torchrecurrent")
    options, renamed = THEIRS[name]
    ours = moved(getattr(cells, name)(WIDTH, WIDTH, **options))
    other = getattr(torchrecurrent, name)(WIDTH, WIDTH).double()
    given = {"weight_ih": ours.weight_ih, "bias_ih": ours.bias, **{t: getattr(ours, o) for t, o in renamed.items()}}
    if not renamed:
        given["weight_hh"] = dense(ours.weight_hh)
    zeros = {n: torch.zeros_like(p) for n, p in other.named_parameters() if n not in given}
    assert set(zeros) <= {"bias_hh", "weight_hh"}
    x, h, outputs = inputs(), torch.zeros(2, WIDTH, dtype=torch.float64), []
    for now in x.unbind(1):
        h = torch.func.functional_call(other, {**given, **zeros}, (now, h))
        outputs.append(h)
    with torch.no_grad():
        close(rt.run(ours, x).y, torch.stack(outputs, 1), torch.float64, name)


def test_same_numbers_as_torchrecurrents_peepholes() -> None:
    torchrecurrent = pytest.importorskip("torchrecurrent")
    ours = moved(cells.PeepholeLSTMCell(WIDTH, WIDTH))
    other = torchrecurrent.PeepholeLSTMCell(WIDTH, WIDTH).double()
    given = {  # both have the order i, f, input, o
        "weight_ih": ours.weight_ih,
        "weight_hh": dense(ours.weight_hh),
        "bias_ih": ours.bias,
        "bias_hh": torch.zeros_like(ours.bias),
        "weight_ph": ours.peephole.reshape(other.weight_ph.shape),
    }
    x, state, outputs = inputs(), None, []
    for now in x.unbind(1):
        state = torch.func.functional_call(other, given, (now, state))
        outputs.append(state[0])
    with torch.no_grad():
        close(rt.run(ours, x).y, torch.stack(outputs, 1), torch.float64, "peepholes")


def test_the_lstm_without_peepholes_is_torchs() -> None:
    ours = moved(cells.PeepholeLSTMCell(WIDTH, WIDTH, variant="np"))
    plain = cells.LSTMCell(WIDTH, WIDTH).double()
    plain.load_state_dict(ours.state_dict())
    with torch.no_grad():
        close(rt.run(ours, inputs()).y, rt.run(plain, inputs()).y, torch.float64, "np")


# -------------------------------------------------------------------------------------------------------- LSTM variants


def test_a_variant_has_no_weights_that_it_does_not_use() -> None:
    count = {v: sum(p.numel() for p in cells.PeepholeLSTMCell(WIDTH, WIDTH, variant=v).parameters()) for v in VARIANTS}
    gate = 2 * WIDTH**2 + WIDTH
    assert len(VARIANTS) == 9
    assert count["vanilla"] == count["niaf"] == count["noaf"] == 4 * gate + 3 * WIDTH
    assert count["nig"] == count["nfg"] == count["nog"] == count["cifg"] == 3 * gate + 2 * WIDTH
    assert count["np"] == 4 * gate
    assert count["fgr"] == count["vanilla"] + 9 * WIDTH**2


# -------------------------------------------------------------------------------------------------------------- limits


def test_slstm_is_finite_whatever_the_gates_say() -> None:
    cell = cells.SLSTMCell(4, 4)
    with torch.no_grad():
        cell.weight_ih.zero_()
        cell.bias.copy_(torch.tensor([[800.0, -800.0, 90.0, -300.0], [-700.0, 700.0, 0.0, 90.0], [1.0] * 4, [9.0] * 4]))
    for method in (rt.Sequential(), rt.Fused()):
        y, state, _ = rt.run(cell, torch.zeros(1, 50, 4), method=method)
        grads = torch.autograd.grad(y.sum(), list(cell.parameters()))
        assert all(torch.isfinite(t).all() for t in (y, *state, *grads))
        # Inputs are equal at all times, so that their weighted mean is any of them.
        close(y[0, -1], (torch.tensor(9.0).sigmoid() * torch.tensor(1.0).tanh()).expand(4), torch.float32, str(method))


def test_slstm_takes_what_each_pair_of_gates_sees() -> None:
    cell = moved(cells.SLSTMCell(WIDTH, WIDTH, heads=2))
    x = inputs()
    with torch.no_grad():
        whole = rt.run(cell, x).y
        assert torch.equal(rt.run(cell, (x, x)).y, whole)
        assert not torch.allclose(rt.run(cell, (x, -x)).y, rt.run(cell, (-x, x)).y)


@pytest.mark.parametrize("make", [cells.ParaGRUCell, cells.ParaLSTMCell])
def test_a_clip_bounds_what_multiplies_the_state(make) -> None:
    torch.manual_seed(0)
    free, bound = make(WIDTH, WIDTH).double(), make(WIDTH, WIDTH, clip=0.5).double()
    with torch.no_grad():
        for name, p in free.named_parameters():
            if name in ("weight_hh", "peephole"):
                p.copy_(torch.randn_like(p).sign() * 0.5)
                getattr(bound, name).copy_(3 * p)
            else:
                getattr(bound, name).copy_(p)
        for method in (rt.Sequential(), rt.Fused()):
            close(rt.run(bound, inputs(), method=method).y, rt.run(free, inputs()).y, torch.float64, str(method))


def test_bilinear_states_have_norm_one_and_no_scale() -> None:
    cell = moved(cells.BilinearCell(WIDTH, WIDTH, heads=2))
    x = inputs()
    with torch.no_grad():
        y = rt.run(cell, x).y
        close(y.unflatten(-1, (2, 3)).square().sum(-1), torch.ones(2, 9, 2), torch.float64, "norm")
        start = 100 * cell.initial_state(2, x)
        close(rt.run(cell, x, start).y, y, torch.float64, "from a state of another scale")
        fresh = cells.BilinearCell(WIDTH, WIDTH, heads=2).double()
        close(rt.run(fresh, 0 * x).state, fresh.initial_state(2, x), torch.float64, "nothing read")


def test_a_wave_travels_one_place_a_step_around_its_ring() -> None:
    cell = cells.WaveRNNCell(WIDTH, channels=2, ring=5)
    with torch.no_grad():
        start = torch.zeros(1, 2, 5)
        start[0, 0, 1] = start[0, 1, 3] = 1
        h = rt.run(cell, torch.zeros(1, 12, WIDTH), start.flatten(1)).y.view(12, 2, 5)
    assert h[:, 0].argmax(-1).tolist() == [(1 - t) % 5 for t in range(1, 13)]
    assert h[:, 1].argmax(-1).tolist() == [(3 - t) % 5 for t in range(1, 13)]
    assert torch.equal(h.sum(-1), torch.ones(12, 2))


class Rotating(rt.Cell):
    """A product in every step, and nothing in the drive."""

    state_shape = (WIDTH,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0])

    def step(self, u, h):
        return torch.tanh(u + h @ self.weight)


def test_autocast_does_not_round_the_products_of_steps() -> None:
    torch.manual_seed(0)
    cell, x = Rotating(), inputs(200).float()
    with torch.no_grad():
        want = rt.run(cell, x).y
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(rt.run(cell, x).y, want)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "make",
    [
        partial(cells.ElmanCell, 6, 6, heads=4),
        partial(cells.ElmanCell, 6, 6, activation="sin"),
        partial(cells.IndRNNCell, 6, 6, activation="sin"),
        partial(cells.PeepholeLSTMCell, 6, 6, variant="nofg"),
        partial(cells.SLSTMCell, 6, 6, heads=0),
        partial(cells.ParaGRUCell, 6, 6, clip=-1.0),
        partial(cells.M2RNNCell, 2, 0, 4),
        partial(cells.BilinearCell, 6, 6, heads=4),
        partial(cells.WaveRNNCell, 6, 1, 6, conv_width=2),
        partial(cells.WaveRNNCell, 6, 1, 3, conv_width=5),
        partial(cells.WaveRNNCell, 6, 1, 3, activation="sin"),
    ],
)
def test_refused(make) -> None:
    with pytest.raises(InputError, match=r"`\w+`"):
        make()
