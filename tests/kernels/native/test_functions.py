"""The gates' functions in C, lane by lane, beside float64: from subnormal numbers to infinities."""

import pytest
import torch

from ritornello import ops
from ritornello.kernels.native import _library
from ritornello.kernels.registry import backend

pytestmark = pytest.mark.skipif(not _library.available(), reason="the native library is not built")

MAGNITUDES = [
    0.0,
    1e-40,
    1e-20,
    1e-3,
    0.3,
    0.62,
    0.63,
    1.0,
    3.0,
    9.0,
    20.0,
    80.0,
    87.0,
    89.0,
    200.0,
    1e10,
    3e38,
    float("inf"),
]
POINTS = torch.tensor([sign * x for x in MAGNITUDES for sign in (1.0, -1.0)] + [float("nan")], dtype=torch.float64)


def gate(values, name):
    """The function of every value, read off one step of an LSTM whose other gates are open or shut."""
    opened, shut, zero = torch.full_like(values, 1e3), torch.full_like(values, -1e3), torch.zeros_like(values)
    weight = values.new_zeros(4, 1, len(values), len(values))
    i, f, g, o = {"sigmoid": (opened, shut, opened, values), "tanh": (opened, shut, values, opened)}[name]
    u = torch.stack([i, f, g, o])[None, None]
    with backend("native"):
        y, (_, c) = ops.lstm(u, weight, (zero[None], zero[None]))
    return c[0] if name == "tanh" else y[0, 0] / torch.tanh(torch.ones_like(values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_a_gate_is_its_function_everywhere(name, dtype):
    values = POINTS.to(dtype)
    expected = getattr(torch, name)(values.double())
    ours = gate(values, name).double()
    # Below −87 a sigmoid in float32 stays at 1.6e-38, which no sum can tell from 0.
    torch.testing.assert_close(
        ours, expected, rtol=4e-7 if dtype == torch.float32 else 1e-14, atol=2e-38, equal_nan=True
    )


def bfloat16_gate(values, name):
    """The same in bfloat16, read off c, which is float32."""
    opened, shut = torch.full_like(values, 1e3), torch.full_like(values, -1e3)
    start = torch.ones_like(values) if name == "sigmoid" else torch.zeros_like(values)
    i, f, g, o = (shut, values, values, shut) if name == "sigmoid" else (opened, shut, values, shut)
    weight = values.new_zeros(4, 1, len(values), len(values))
    with backend("native"):
        _, (_, c) = ops.lstm(torch.stack([i, f, g, o])[None, None], weight, (start[None].float(), start[None].float()))
    return c[0]


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_a_gate_in_bfloat16_is_its_function_to_twelve_bits(name):
    values = torch.cat([POINTS, torch.linspace(-12, 12, 4001, dtype=torch.float64)]).bfloat16()
    ours, expected = bfloat16_gate(values, name).double(), getattr(torch, name)(values.double())
    torch.testing.assert_close(ours, expected, rtol=2**-12, atol=2e-38, equal_nan=True)
    assert not (ours.abs() > 1).any()


def test_what_a_sigmoid_in_bfloat16_lacks_to_one_is_as_exact():
    """A forget gate of 1 − 10⁻⁵ remembers 100,000 steps, and one of 1 − 7·10⁻⁵ does not."""
    values = torch.linspace(0, 9, 500).bfloat16()
    lacks = 1 - bfloat16_gate(values, "sigmoid").double()
    torch.testing.assert_close(lacks, torch.sigmoid(-values.double()), rtol=2**-12, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("op", ["swiglu", "rms_norm", "causal_conv", "gated_scan"])
def test_silu_and_its_slope_vanish_far_below_zero(op, dtype):
    x = torch.tensor([-95.0, -800.0, -1e10, -1e30, -3e38], dtype=dtype).requires_grad_()
    row = x[None, None]
    one = torch.ones_like(row)
    calls = {
        "swiglu": lambda: ops.swiglu(row, one),
        "rms_norm": lambda: ops.rms_norm(one, None, row),
        "causal_conv": lambda: ops.causal_conv(row, one[0].t(), activation="silu")[0],
        "gated_scan": lambda: ops.gated_scan(50 * one, row, activation="silu")[0],
    }
    with backend("native"):
        y = calls[op]()
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.abs().max() < 1e-30
    assert slope.abs().max() < 1e-30
