"""The reference backend against an oracle for each op, NumPy in float64 from the paper: values and derivatives."""

from __future__ import annotations

import importlib
import importlib.util
import itertools

import numpy as np
import pytest
import torch

from ritornello import ops
from ritornello.kernels.registry import backend
from ritornello.testing.draw import Draw
from ritornello.testing.op_cases import OF_ROWS, Sizes, case, cases, op_names
from ritornello.testing.op_check import parted

TOLERANCE = 1e-10
ALL = [(op, name) for op in op_names() for name in cases(op)]


def oracle_of(op):
    return importlib.import_module(f"tests.oracles.{op}").oracle


def plain(value):
    """Tensors as NumPy arrays, tuples as tuples."""
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def completed(op, arguments):
    """The arguments with the defaults that the op would put in: scale, eps, the state of a sequence's start."""
    found = dict(arguments)
    if "q" in found:
        found.setdefault("scale", found["q"].shape[-1] ** -0.5)
    if op == "mlstm":
        found.setdefault("eps", 1e-6)
    if op == "rms_norm":
        found.setdefault("eps", 1e-5)
    if "state" not in found and op not in OF_ROWS:
        rows = found["cu_seqlens"].numel() - 1 if "cu_seqlens" in found else next(iter(found.values())).shape[0]
        found["state"] = initial(op, found, rows)
    return found


def initial(op, given, rows):
    def zeros(*shape):
        return torch.zeros(rows, *shape, dtype=next(iter(given.values())).dtype)

    if op in ("linear_attention", "delta_rule", "dplr"):
        return zeros(given["v"].shape[2], given["k"].shape[3], given["v"].shape[3])
    if op == "mlstm":
        heads, key, value = given["v"].shape[2], given["k"].shape[3], given["v"].shape[3]
        return zeros(heads, key, value), zeros(heads, key), zeros(heads)
    if op == "softmax_scan":
        inner, value = given["logits"].shape[2:], given["values"].shape[2:]
        return zeros(*inner) - float("inf"), zeros(*value), zeros(*inner)
    if op == "selective_scan":
        return zeros(*given["A"].shape)
    if op == "causal_conv":
        return zeros(given["weight"].shape[0], given["weight"].shape[1] - 1)
    return zeros(*given["value" if op == "gated_scan" else "b"].shape[2:])


def over_time(name):
    return name not in ("state", "A", "D", "bonus", "weight", "bias")


def run_oracle(op, arguments):
    """The oracle's output and final state; packed sequences one after the other, zero behind the last."""
    given = {name: plain(value) for name, value in arguments.items()}
    bounds = given.pop("cu_seqlens", None)
    oracle = oracle_of(op)
    if bounds is None:
        return oracle(**given)
    lead = given[{"block_scan": "b", "softmax_scan": "values"}.get(op, "v" if "v" in given else next(iter(given)))]
    output, finals = np.zeros_like(lead), []
    for row, (start, end) in enumerate(itertools.pairwise(bounds)):
        one = {k: x[:, start:end] if isinstance(x, np.ndarray) and over_time(k) else x for k, x in given.items()} | {
            "state": rows_of(given["state"], row)
        }
        output[:, start:end], last = oracle(**one)
        finals.append(last)
    return output, tuple(np.concatenate(parts) for parts in zip(*finals, strict=True))


def rows_of(state, row):
    return tuple(s[row : row + 1] for s in state) if isinstance(state, tuple) else state[row : row + 1]


def comparable(op, last):
    """A final state as tensors that mean the same for any stabiliser."""
    if op not in ("mlstm", "softmax_scan"):
        return last
    m, parts = (last[2], last[:2]) if op == "mlstm" else (last[0], last[1:])
    return tuple(p * m.detach().exp().reshape(m.shape + (1,) * (p.dim() - m.dim())) for p in parts)


def close(got, want):
    assert got.shape == want.shape
    if want.size:
        assert np.abs(got - want).max() <= TOLERANCE * (1 + np.abs(want).max())


@pytest.mark.parametrize(("op", "name"), ALL)
def test_reference_is_the_paper(op, name):
    arguments = completed(op, case(op, name).arguments)
    with backend("reference"):
        output, last = parted(getattr(ops, op)(**arguments))
    want, want_last = run_oracle(op, arguments)
    close(output.numpy(), want)
    for got, one in zip(comparable(op, last), want_last, strict=True):
        close(got.numpy(), one)


def test_complex_diagonal_scan():
    arguments = completed("diagonal_scan", case("diagonal_scan", "plain", torch.complex128).arguments)
    with backend("reference"):
        output, last = ops.diagonal_scan(**arguments)
    want, want_last = run_oracle("diagonal_scan", arguments)
    close(output.numpy(), want)
    close(last.numpy(), want_last[0])


DERIVED = [
    ("diagonal_scan", "plain"), ("block_scan", "three"), ("gated_scan", "positive"), ("linear_attention", "plain"),
    ("linear_attention", "signed vector"),
    ("linear_attention", "bonus"), ("delta_rule", "plain"), ("delta_rule", "signed"), ("dplr", "plain"),
    ("mlstm", "plain"), ("softmax_scan", "decay"), ("softmax_scan", "bonus"), ("selective_scan", "signed"),
    ("causal_conv", "silu"), ("rms_norm", "plain"), ("swiglu", "plain"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "name"), DERIVED)
def test_derivatives_are_the_oracle_s(op, name):
    """The gradient along a random direction of every input is the oracle's central difference."""
    spec = case(op, name)
    arguments = completed(op, spec.arguments)
    if op == "mlstm":
        arguments["eps"] = 0.0  # with it, the output depends on m, which by contract has no gradient
    draw = Draw(f"directions {op}", torch.float64, "cpu")
    places = [(k, i) for k, v in arguments.items() for i in range(len(v) if isinstance(v, tuple) else 1)]
    for key, place in places:
        leaf = arguments[key][place] if isinstance(arguments[key], tuple) else arguments[key]
        if not isinstance(leaf, torch.Tensor) or (op, key, place) in (
            ("mlstm", "state", 2),
            ("softmax_scan", "state", 0),
        ):
            continue
        direction = draw.normal(*leaf.shape)
        slope = slope_of_reference(op, arguments, key, place, direction)
        step = 1e-6
        high, low = (loss_of_oracle(op, put(arguments, key, place, leaf + s * direction)) for s in (step, -step))
        assert slope == pytest.approx((high - low) / (2 * step), rel=2e-5, abs=2e-5), key


def put(arguments, key, place, value):
    old = arguments[key]
    return arguments | {key: (*old[:place], value, *old[place + 1 :]) if isinstance(old, tuple) else value}


def weights(op, index, shape):
    return np.random.default_rng([len(op), index]).standard_normal(shape)


def loss_of_oracle(op, arguments):
    output, last = run_oracle(op, arguments)
    return sum(float((weights(op, i, x.shape) * x).sum()) for i, x in enumerate((output, *last)))


def slope_of_reference(op, arguments, key, place, direction):
    old = arguments[key]
    leaf = (old[place] if isinstance(old, tuple) else old).detach().clone().requires_grad_()
    with backend("reference"):
        output, last = parted(getattr(ops, op)(**put(arguments, key, place, leaf)))
    results = (output, *comparable(op, last))
    loss = sum((torch.as_tensor(weights(op, i, x.shape)) * x).sum() for i, x in enumerate(results))
    return float((torch.autograd.grad(loss, leaf)[0] * direction).sum())


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_gated_delta_rule_is_transformers():
    """A third party's code: Qwen3-Next's recurrent gated delta rule."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule

    found = completed("delta_rule", case("delta_rule", "plain", torch.float32).arguments)
    want, last = torch_recurrent_gated_delta_rule(
        found["q"], found["k"], found["v"], found["log_decay"], found["beta"], found["state"], output_final_state=True
    )
    with backend("reference"):
        output, state = ops.delta_rule(**found)
    torch.testing.assert_close(output, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)


def test_causal_conv_is_conv1d():
    """A third party's code: PyTorch's grouped convolution."""
    found = case("causal_conv", "no state").arguments
    x, weight, bias = found["x"], found["weight"], found["bias"]
    padded = torch.nn.functional.conv1d(x.mT, weight.unsqueeze(1), bias, padding=weight.shape[1] - 1, groups=x.shape[2])
    with backend("reference"):
        torch.testing.assert_close(ops.causal_conv(x, weight, bias)[0], padded[..., : x.shape[1]].mT)


def test_sizes_of_a_case():
    """An option that a case does not give is None, and packing has a batch of one."""
    sizes = Sizes(Draw("", torch.float64, "cpu"), cu=[0, 2, 5])
    assert sizes.B == 1 and sizes.rows == 2 and sizes.vector is None
