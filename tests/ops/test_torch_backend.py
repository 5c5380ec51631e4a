"""What only the torch backend does: windows, blocks of several levels, long sequences, slow and zero decays."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch

from ritornello import ops
from ritornello.kernels.registry import backend
from ritornello.kernels.torch import _scan
from ritornello.testing.op_cases import OF_ROWS, case, cases, op_names
from ritornello.testing.op_check import check_op

WINDOWED = [op for op in op_names() if op not in ("block_scan", "diagonal_scan", "gated_scan", "causal_conv", *OF_ROWS)]


@pytest.mark.parametrize("op", WINDOWED)
def test_several_windows(op, monkeypatch):
    """Windows of 16 steps give what one window gives, and the gradients go through all of them."""
    module = importlib.import_module(f"ritornello.kernels.torch.{op}")
    kernel = dataclasses.replace(module._kernel, steps=lambda *tensors: 16)
    monkeypatch.setattr(module, "forward", kernel.forward)
    monkeypatch.setattr(module, "backward", kernel.backward)
    for name in cases(op):
        check_op(op, "torch", name, torch.float64)


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("steps", (1, 64, 65, 100, 4096, 5001))
def test_blocked_scan_of_any_length(steps, reverse):
    torch.manual_seed(steps)
    a, b, state = (torch.randn(2, steps, 3).double() for _ in range(3))
    a, state = a.tanh(), state[:, 0]
    want, h = torch.empty_like(b), state
    for t in range(steps)[:: -1 if reverse else 1]:
        want[:, t] = h = a[:, t] * h + b[:, t]
    torch.testing.assert_close(_scan.blocked_scan(a, b, state, reverse), want, rtol=1e-12, atol=1e-12)


def gated(steps, strong=False):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, steps, 1, 8) for _ in range(3))
    log_decay = -30.0 * (torch.rand(1, steps, 1) < 0.3) - 0.01 if strong else -torch.rand(1, steps, 1) * 0.01
    return q, torch.nn.functional.normalize(k, dim=-1), v, torch.rand(1, steps, 1) * 2, log_decay


@pytest.mark.parametrize("strong", (False, True))
def test_a_long_sequence_is_that_of_its_pieces(strong):
    """100,000 steps at once, and the same in ten calls that pass the state on."""
    inputs = gated(100_000, strong)
    with backend("torch"), torch.no_grad():
        whole, last = ops.delta_rule(*inputs)
        state, pieces = None, []
        for piece in zip(*(x.split(10_000, 1) for x in inputs), strict=True):
            output, state = ops.delta_rule(*piece, state=state)
            pieces.append(output)
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(whole, torch.cat(pieces, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, state, rtol=1e-4, atol=1e-5)


def test_a_slow_decay_keeps_its_digits():
    """log decay −1e−6 over 50,000 steps from a state of ones: e^−0.05, not what float32 makes of 1 − 1e−6."""
    steps = 50_000
    q, k, v = torch.ones(1, steps, 1, 1), torch.zeros(1, steps, 1, 1), torch.zeros(1, steps, 1, 1)
    with backend("torch"), torch.no_grad():
        _, last = ops.linear_attention(q, k, v, torch.full((1, steps, 1), -1e-6), state=torch.ones(1, 1, 1, 1))
    assert float(last) == pytest.approx(0.951229, rel=1e-4)


def test_gradient_at_an_exact_zero_of_the_decay():
    """d = 0 forgets the state, and the gradient by d is still what the state would have added."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 9, 1, 4, dtype=torch.float64) for _ in range(3))
    decay = torch.full((1, 9, 1), 0.5, dtype=torch.float64)
    decay[0, 5] = 0
    found = []
    for name in ("reference", "torch"):
        d = decay.clone().requires_grad_()
        with backend(name):
            ops.linear_attention(q, k, v, decay=d)[0].sum().backward()
        found.append(d.grad)
    assert found[0][0, 5].abs() > 0.1
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", [op for op in op_names() if op not in OF_ROWS])
def test_packing_of_no_sequence_and_of_int32(op):
    """`cu_seqlens` of [0] holds no sequence: zeros come out; and it may be of 32 bits."""
    arguments = case(op, "packed").arguments
    with backend("torch"):
        want, _ = getattr(ops, op)(**arguments)
        got, _ = getattr(ops, op)(**(arguments | {"cu_seqlens": arguments["cu_seqlens"].int()}))
        nothing, _ = getattr(ops, op)(
            **{k: v for k, v in arguments.items() if k != "state"} | {"cu_seqlens": torch.tensor([0])}
        )
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert nothing.shape == want.shape
    assert not nothing.any()


def test_a_forget_gate_of_minus_infinity_forgets_all():
    arguments = case("mlstm", "plain", torch.float64).arguments
    f = arguments["f"].clone()
    f[:, 2::3] = float("-inf")
    results = []
    for name in ("reference", "torch"):
        inputs = {**arguments, "f": f, "v": arguments["v"].clone().requires_grad_()}
        with backend(name):
            o, (C, n, m) = ops.mlstm(**inputs)
        scale = m.exp().unsqueeze(-1)
        results.append((o, C * scale.unsqueeze(-1), n * scale, *torch.autograd.grad(o.square().sum(), inputs["v"])))
    torch.testing.assert_close(results[1], results[0])
