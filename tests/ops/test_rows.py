"""What only the ops on single rows do: their checks, mixed dtypes, and views that are read where they lie."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ritornello import ops
from ritornello.errors import InputError
from ritornello.kernels.native._tensors import grid


def test_rms_norm_is_pytorch_s():
    """A third party's code: PyTorch's norm and silu."""
    torch.manual_seed(0)
    x, weight, gate = torch.randn(3, 5, 12).double(), torch.randn(12).double(), torch.randn(3, 5, 12).double()
    want = F.rms_norm(x, (12,), weight, 1e-3) * F.silu(gate)
    torch.testing.assert_close(ops.rms_norm(x, weight, gate, 1e-3), want)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 4, 6), (2, 3, 1, 4, 6)])
def test_any_number_of_dimensions(shape):
    torch.manual_seed(0)
    x, gate = torch.randn(shape).double(), torch.randn(shape).double()
    torch.testing.assert_close(ops.rms_norm(x, eps=1e-5), F.rms_norm(x, shape[-1:], eps=1e-5))
    torch.testing.assert_close(ops.swiglu(gate, x), F.silu(gate) * x)


def test_dtypes():
    """The norm keeps the dtype of x, whatever its weight and gate are in; swiglu takes the wider of two."""
    x = torch.randn(4, 8)
    assert ops.rms_norm(x.bfloat16(), torch.ones(8), x).dtype == torch.bfloat16
    assert ops.rms_norm(x, torch.ones(8).bfloat16(), x.bfloat16()).dtype == torch.float32
    assert ops.swiglu(x.bfloat16(), x).dtype == torch.float32
    assert ops.swiglu(x.bfloat16(), x.bfloat16()).dtype == torch.bfloat16


def test_views_are_not_copied():
    """Halves of a projection and heads of one are read where they lie."""
    projected = torch.randn(2, 5, 48)
    for view in (*projected.chunk(2, -1), projected[..., 8:32].unflatten(-1, (3, 8)), projected[0, :, 4:]):
        assert grid(view).data_ptr() == view.data_ptr()
        torch.testing.assert_close(grid(view).reshape(view.shape), view, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.rms_norm(x.sum()), "is a scalar"),
        (lambda x: ops.rms_norm(x, torch.ones(3)), r"`weight` .* \(3,\); wanted \(8,\)"),
        (lambda x: ops.rms_norm(x, gate=x[:1]), r"`gate` .* \(1, 8\); wanted \(4, 8\)"),
        (lambda x: ops.rms_norm(x.int()), "float32"),
        (lambda x: ops.swiglu(x, x[:1]), r"\(4, 8\) and \(1, 8\)"),
        (lambda x: ops.swiglu(x.int(), x.int()), "float32"),
    ],
)
def test_errors_say_what_is_wanted(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.randn(4, 8))
