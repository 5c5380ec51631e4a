"""The kernels of matrix states: what is no number stays in the head and the sequence it belongs to; no values."""

from __future__ import annotations

import pytest
import torch

from ritornello import ops
from ritornello.kernels.native import _library, _matrix
from ritornello.kernels.registry import backend
from ritornello.testing.op_check import parted

pytestmark = pytest.mark.skipif(not _library.available(), reason="the native library is not built")


def gradients(v: torch.Tensor, vector: bool, cu_seqlens: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Of v, beta and the decay, whose heads are v's own."""
    draw = torch.Generator().manual_seed(0)
    steps, heads = v.shape[1:3]
    q, k = (torch.randn(1, steps, 1, 8, generator=draw) / 3 for _ in range(2))
    beta = torch.rand(1, steps, heads, generator=draw).requires_grad_()
    shape = (1, steps, heads, 8) if vector else (1, steps, heads)
    log_decay = (-torch.rand(shape, generator=draw)).requires_grad_()
    v = v.clone().requires_grad_()
    with backend("native"):
        o, _ = ops.delta_rule(q, k, v, beta, log_decay=log_decay, cu_seqlens=cu_seqlens)
    return torch.autograd.grad(o, (v, beta, log_decay), torch.ones_like(o))


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("bad", [0, 1])
def test_nan_of_one_head_does_not_reach_another(bad, vector):
    v = torch.randn(1, 35, 2, 20, generator=torch.Generator().manual_seed(1))
    clean = gradients(v, vector, None)
    v[:, :, bad] = float("nan")
    for got, want in zip(gradients(v, vector, None), clean, strict=True):
        assert torch.equal(got[:, :, 1 - bad], want[:, :, 1 - bad])


@pytest.mark.parametrize("vector", [False, True])
def test_nan_of_one_sequence_does_not_reach_another(vector):
    v = torch.randn(1, 52, 1, 20, generator=torch.Generator().manual_seed(1))
    cu_seqlens = torch.tensor([0, 17, 35, 52])
    clean = gradients(v, vector, cu_seqlens)
    v[:, 17:35] = float("nan")
    for got, want in zip(gradients(v, vector, cu_seqlens), clean, strict=True):
        assert torch.equal(got[:, :17], want[:, :17])
        assert torch.equal(got[:, 35:], want[:, 35:])


@pytest.mark.parametrize("op", ["delta_rule", "mlstm"])
def test_without_values_there_is_still_a_normaliser(op):
    draw = torch.Generator().manual_seed(2)
    q, k = (torch.randn(2, 19, 2, 8, generator=draw).requires_grad_() for _ in range(2))
    gates = [torch.randn(2, 19, 2, generator=draw).requires_grad_() for _ in range(2)]
    v, found = torch.zeros(2, 19, 2, 0), []
    for name in ("native", "reference"):
        with backend(name):
            o, last = parted(getattr(ops, op)(q, k, v, *gates))
        read = torch.stack([x.square().sum() for x in (o, *last)]).sum()
        found.append((*last, *torch.autograd.grad(read, (q, k, *gates), allow_unused=True)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_one_decay_a_head_is_read_where_it_lies():
    q, decay = torch.zeros(1, 4, 2, 3), torch.zeros(1, 2, 4).transpose(1, 2)
    x = _matrix.Arguments(_matrix.LINEAR, q, q, q, torch.zeros(1, 2, 3, 3), None, 1.0, decay=decay)
    assert x.decay is decay
