"""The nonlinear cells: against their oracles, against themselves cut and packed; native against the loop."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from ritornello import ops
from ritornello.errors import InputError
from ritornello.kernels import registry
from ritornello.kernels.native import _library
from tests.oracles.elman import elman as elman_oracle
from tests.oracles.gru import gru as gru_oracle
from tests.oracles.lstm import lstm as lstm_oracle
from tests.oracles.m2rnn import m2rnn as m2rnn_oracle
from tests.oracles.mgu import mgu as mgu_oracle
from tests.oracles.para_gru import para_gru as para_gru_oracle
from tests.oracles.para_lstm import para_lstm as para_lstm_oracle
from tests.oracles.slstm import slstm as slstm_oracle

GATES = {"elman": 0, "relu": 0, "lstm": 4, "gru": 3, "gru_bias": 3, "mgu": 2, "slstm": 4, "para_gru": 3, "para_lstm": 3}
CELLS = [*GATES, "m2rnn"]
OPS = {c: c.split("_bias")[0].replace("relu", "elman") for c in CELLS}
NATIVE = [c for c in CELLS if _library.missing() is None and (OPS[c], "native") in registry._kernels]


def tensors(cell, batch=3, steps=7, heads=2, d=5, dtype=torch.float64, rows=None):
    """Inputs that change with time, weights, and the initial state, all of which want gradients."""
    g = torch.Generator().manual_seed(7)

    def draw(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)

    rows = batch if rows is None else rows
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    width = heads * d

    def state():
        return draw(rows, width, scale=0.5).to(wide)

    if cell == "m2rnn":
        key, value = d + 2, d
        inputs = [draw(batch, steps, heads, key), draw(batch, steps, heads, key, scale=0.5)]
        inputs += [draw(batch, steps, 2 * heads, value), draw(batch, steps, 2 * heads).sigmoid().to(wide)]
        weights = [draw(2 * heads, value, value, scale=value**-0.5)]
        states = [draw(rows, 2 * heads, key, value, scale=0.5).to(wide)]
    else:
        gates = GATES[cell]
        inputs = [draw(batch, steps, gates, width, scale=1.5) if gates else draw(batch, steps, width, scale=1.5)]
        weights = [draw(*(gates,) * bool(gates), heads, d, d, scale=d**-0.5)]
        if cell.startswith("para"):
            weights = [draw(gates, width, scale=0.5).to(wide)]
        if cell == "para_lstm":
            weights += [draw(2, width, scale=0.5).to(wide)]
        if cell == "gru_bias":
            weights += [draw(width).to(wide)]
        states = [state()]
        if cell in ("lstm", "para_lstm", "slstm"):
            states += [state()]
        if cell == "slstm":
            states += [state().exp(), state()]
    for x in (*inputs, *weights, *states):
        x.requires_grad_()
    return inputs, weights, states


def call(cell, inputs, weights, states, cu_seqlens=None):
    """The op under one signature; the final state as a tuple."""
    if cell == "m2rnn":
        y, last = ops.m2rnn(*inputs, *weights, state=states[0], cu_seqlens=cu_seqlens)
        return y, (last,)
    packed = {"cu_seqlens": cu_seqlens}
    if cell in ("lstm", "slstm", "para_lstm"):
        return getattr(ops, cell)(*inputs, *weights, tuple(states), **packed)
    if cell == "relu":
        packed["activation"] = "relu"
    name = {"relu": "elman", "gru_bias": "gru"}.get(cell, cell)
    y, last = getattr(ops, name)(*inputs, *weights, state=states[0], **packed)
    return y, (last,)


def oracle(cell, inputs, weights, states) -> tuple[Any, Any]:
    if cell == "slstm":
        h, c, n, m = states
        y, (h, c, n) = slstm_oracle(*(x.detach().numpy() for x in (*inputs, *weights, h, c * m.exp(), n * m.exp())))
        return y, (h, c, n)
    ours = {"mgu": mgu_oracle, "para_gru": para_gru_oracle, "para_lstm": para_lstm_oracle, "m2rnn": m2rnn_oracle}
    if cell in ours:
        of = ours[cell]
        y, last = of(*(x.detach().numpy() for x in (*inputs, *weights, *states)))
    elif cell == "lstm":
        return lstm_oracle(*inputs, *weights, *states)
    elif cell.startswith("gru"):
        y, last = gru_oracle(*inputs, *(weights if len(weights) == 2 else (*weights, None)), *states)
    else:
        y, last = elman_oracle(*inputs, *weights, *states, activation="relu" if cell == "relu" else "tanh")
    return y, last if isinstance(last, tuple) else (last,)


def comparable(cell, last):
    """The final state in a form that is unique: sLSTM's c and n are defined up to its m."""
    return (last[0], last[1] * last[3].exp(), last[2] * last[3].exp()) if cell == "slstm" else last


def results(cell, inputs, weights, states, cu_seqlens=None):
    """Output, final state and every gradient of a fixed random functional of them."""
    y, last = call(cell, inputs, weights, states, cu_seqlens)
    parts = (y, *comparable(cell, last))
    g = torch.Generator().manual_seed(11)
    loss = sum((p.double() * torch.randn(p.shape, generator=g, dtype=torch.float64)).sum() for p in parts)
    wanted = [*inputs, *weights, *(states[:3] if cell == "slstm" else states)]
    return (*parts, *torch.autograd.grad(loss, wanted))


def close(got, want, tolerance):
    for a, b in zip(got, want, strict=True):
        scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
        torch.testing.assert_close(a.double(), b.double(), atol=tolerance * scale, rtol=tolerance)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_oracle(cell, heads):
    arguments = tensors(cell, heads=heads)
    y, last = call(cell, *arguments)
    want, want_last = oracle(cell, *arguments)
    close((y, *comparable(cell, last)), [torch.as_tensor(x) for x in (want, *want_last)], 1e-12)


@pytest.mark.parametrize("cell", ["elman", "relu", "lstm", "gru_bias"])
def test_gradients_are_those_of_torch_nn(cell):
    inputs, weights, states = arguments = tensors(cell)
    wanted = [*inputs, *weights, *states]
    y, last = call(cell, *arguments)
    want, want_last = oracle(cell, *arguments)
    got = torch.autograd.grad(y.square().sum() + sum(s.sin().sum() for s in last), wanted)
    close(got, torch.autograd.grad(want.square().sum() + sum(s.sin().sum() for s in want_last), wanted), 1e-11)


@pytest.mark.parametrize("name", ["reference", "native"])
def test_the_stabiliser_of_slstm_is_not_differentiated(name):
    u, weight = torch.randn(2, 3, 4, 8), torch.randn(4, 1, 8, 8)
    h, c, n, m = torch.rand(4, 2, 8).requires_grad_().unbind()
    with registry.backend(name):
        y = ops.slstm(u, weight, (h, c, n, m))[0]
    of_c, of_m = torch.autograd.grad(y.sum(), (c, m), allow_unused=True)
    assert of_c.abs().max() > 0
    assert of_m is None or not of_m.any()


def test_slstm_from_nothing_with_gates_far_below_zero():
    u = torch.full((1, 3, 4, 2), -300.0)
    u[:, :, 2] = 1.0
    y, (_, _, n, _) = ops.slstm(u, torch.zeros(4, 1, 2, 2))
    assert torch.isfinite(y).all()
    assert (n >= 1).all()


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_any_cut_is_the_same(cell, backend, cut):
    if backend == "native" and cell not in NATIVE:
        pytest.skip("no native kernel")
    inputs, weights, states = tensors(cell, dtype=torch.float32)
    with registry.backend(backend):
        want, want_last = call(cell, inputs, weights, states)
        first, middle = call(cell, [x[:, :cut] for x in inputs], weights, states)
        second, last = call(cell, [x[:, cut:] for x in inputs], weights, list(middle))
    close((torch.cat([first, second], 1), *last), (want, *want_last), 1e-6)


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("cell", CELLS)
def test_packing_is_separate_calls(cell, backend):
    if backend == "native" and cell not in NATIVE:
        pytest.skip("no native kernel")
    ends = [0, 3, 3, 4, 15, 20]
    inputs, weights, states = tensors(cell, batch=1, steps=22, rows=5, dtype=torch.float32)
    with registry.backend(backend):
        y, last = call(cell, inputs, weights, states, torch.tensor(ends))
        for row, (start, end) in enumerate(pairwise(ends)):
            alone, finals = call(cell, [x[:, start:end] for x in inputs], weights, [s[row : row + 1] for s in states])
            close((y[:, start:end], *(s[row : row + 1] for s in last)), (alone, *finals), 1e-6)
        assert not y[:, 20:].any()
        packed = results(cell, inputs, weights, states, torch.tensor(ends))
    if backend == "native":
        with registry.backend("reference"):
            close(packed, results(cell, inputs, weights, states, torch.tensor(ends)), 3e-5)


@pytest.mark.parametrize("cell", NATIVE)
def test_packing_of_no_sequence(cell):
    inputs, weights, states = tensors(cell, batch=1, steps=3, rows=0, dtype=torch.float32)
    with registry.backend("native"):
        y, last = call(cell, inputs, weights, states, torch.tensor([0]))
        grads = torch.autograd.grad(y.sum(), [*inputs, *weights])
    assert not any(x.any() for x in (y, *last, *grads))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "steps", "heads", "d"),
    [(1, 1, 1, 1), (3, 9, 1, 33), (8, 17, 2, 32), (11, 5, 3, 7), (2, 40, 1, 70), (17, 6, 1, 48)],
)
@pytest.mark.parametrize("cell", NATIVE)
def test_native_is_the_loop(cell, batch, steps, heads, d, dtype):
    arguments = tensors(cell, batch, steps, heads, d, dtype)
    with registry.backend("native"):
        got = results(cell, *arguments)
    with registry.backend("reference"):
        want = results(cell, *arguments)
    close(got, want, 3e-5 if dtype == torch.float32 else 4e-2)


@pytest.mark.parametrize("cell", NATIVE)
def test_native_reads_strides(cell):
    inputs, weights, states = tensors(cell, batch=4, steps=6, dtype=torch.float32)
    turned = [x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for x in inputs]
    with registry.backend("native"):
        close(results(cell, turned, weights, states), results(cell, inputs, weights, states), 0.0)


@pytest.mark.parametrize("cell", NATIVE)
def test_native_has_the_same_bits_for_every_number_of_threads(cell):
    arguments = tensors(cell, batch=9, steps=12, heads=2, d=40, dtype=torch.float32)
    threads = torch.get_num_threads()
    found = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            with registry.backend("native"):
                y, last = call(cell, *arguments)
                found.append((y, *last, *torch.autograd.grad(y.sum(), arguments[0])))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("cell", NATIVE)
def test_native_survives_extreme_gates(cell):
    inputs, weights, states = tensors(cell, steps=12, dtype=torch.float32)
    # M²RNN's fourth input is a gate already.
    inputs = [(x if place == 3 else 60 * x).detach().requires_grad_() for place, x in enumerate(inputs)]
    found = []
    for backend in ("native", "reference"):
        with registry.backend(backend):
            y, _ = call(cell, inputs, weights, states)
            found.append((y, *torch.autograd.grad(y.sum(), [*inputs, *weights])))
    assert all(torch.isfinite(x).all() for x in found[0])
    close(found[0], found[1], 1e-4)


def test_mistakes_are_named():
    u, weight = torch.zeros(2, 3, 4, 6), torch.zeros(4, 2, 3, 3)
    with pytest.raises(InputError, match="G=4"):
        ops.lstm(u[:, :, :3], weight)
    with pytest.raises(InputError, match="heads of width 3"):
        ops.lstm(u, weight[:, :1])
    with pytest.raises(InputError, match="state c"):
        ops.lstm(u, weight, (torch.zeros(2, 6), torch.zeros(2, 5)))
    with pytest.raises(InputError, match="'tanh' or 'relu'"):
        ops.elman(u[:, :, 0], weight[0], activation="gelu")
    q, v = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 3, 3)
    with pytest.raises(InputError, match="multiple"):
        ops.m2rnn(q, q, v, v[..., 0], torch.zeros(3, 3, 3))
