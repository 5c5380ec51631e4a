"""Forgetting attention beside plain attention, and in rows longer than a block of queries."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ritornello.layers import ForgettingAttention
from ritornello.testing.subject import Subject, close
from tests.oracles import forgetting_attention as oracle


def test_open_and_shut_gates() -> None:
    layer = Subject(lambda: ForgettingAttention(32, heads=2)).layer()
    x = torch.randn(2, 19, 32, dtype=torch.float64)
    with torch.no_grad():
        k, v = (t.unflatten(-1, (2, 16)) for t in layer.kv_proj(x).chunk(2, -1))
        q, k, v = (t.transpose(1, 2) for t in (layer.q_proj(x).unflatten(-1, (2, 16)), k, v))
        plain = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        layer.forget_proj.weight.zero_()
        for bias, want in ((50.0, plain), (-50.0, v)):  # all is remembered; a step sees itself alone
            layer.forget_proj.bias.fill_(bias)
            close(layer(x)[0], layer.out_proj(want.transpose(1, 2).flatten(2)), torch.float64, f"b = {bias}")


def test_long_rows_keep_their_precision() -> None:
    """By the end of a block Σ log f is in the hundreds; the differences that count are small."""
    layer = Subject(lambda: ForgettingAttention(8, heads=1)).layer()
    with torch.no_grad():
        layer.forget_proj.bias.fill_(-2.0)
        x = torch.randn(1, 600, 8, dtype=torch.float64)
        want = oracle.forward(layer, x)
        close(layer(x)[0], want, torch.float64, "float64")
        first, state = layer(x[:, :300])
        close(torch.cat([first, layer(x[:, 300:], state)[0]], 1), want, torch.float64, "in two calls")
        narrow = layer.float()(x.float())[0]
    assert (narrow - want).abs().max() < 2e-5 * want.abs().max()


def test_gates_start_half_open() -> None:
    assert not ForgettingAttention(16).forget_proj.bias.any()
