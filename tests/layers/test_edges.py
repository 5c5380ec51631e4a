"""Shapes without rows or steps, and a first state that is trained, at every layer."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello import layers
from ritornello.state import map_tensors
from ritornello.testing import check_layer

ALL = [name for role in ("mixer", "feed_forward") for name in layers.catalogue(role)]


@pytest.mark.parametrize("name", ALL)
def test_no_rows_and_no_steps(name):
    layer = layers.build(name, 16)
    x = torch.randn(1, 3, 16)
    cases = [(x[:0], {}), (x[:, :0], {})]
    cases += [(part, {"mask": torch.ones(part.shape[:2], dtype=torch.bool)}) for part in (x[:0], x[:, :0])]
    cases += [(part, {"cu_seqlens": torch.tensor([0])}) for part in (x, x[:, :0])]
    with torch.no_grad():
        for part, how in cases:
            y, state = layer(part, **how)
            assert y.shape == part.shape and not y.any(), how
            rows = 0 if "cu_seqlens" in how else len(part)
            assert all(len(t) == rows for t in state.tensors()), how


@pytest.mark.parametrize("name", ALL)
def test_the_first_state_may_be_trained(name):
    """Of what stands for nothing read, −∞ even, the gradient is finite."""
    torch.manual_seed(0)
    layer = layers.build(name, 16)
    fresh = map_tensors(lambda t: t.requires_grad_() if t.is_floating_point() else t, layer.initial_state(2))
    y, last = layer(torch.randn(2, 5, 16), fresh)
    (y.square().sum() + sum(t.square().sum() for t in last.tensors() if t.grad_fn is not None)).backward()
    for leaf, t in zip(fresh.leaves, fresh.tensors(), strict=True):
        assert t.grad is None or t.grad.isfinite().all(), leaf


def test_what_a_layer_of_ones_own_lacks_is_said():
    class Empty(layers.Layer):
        kind = "empty"

    with pytest.raises(NotImplementedError, match=r"Empty has no leaves\(\)"):
        Empty(4)(torch.zeros(1, 2, 4))
    Empty.leaves = lambda self: {}  # type: ignore[method-assign]
    with pytest.raises(NotImplementedError, match=r"Empty has no mix\("):
        Empty(4)(torch.zeros(1, 2, 4))
    with pytest.raises(rt.InputError, match=r"`make` returned a Linear; wanted a ritornello.layers.Layer"):
        check_layer(lambda: torch.nn.Linear(4, 4))  # type: ignore[arg-type, return-value]
    for direction in ("backward", "both"):
        with pytest.raises(rt.InputError, match=f"gla of direction '{direction}'.* others are tried on that one"):
            check_layer(lambda direction=direction: layers.GLA(8, direction=direction))


def test_no_heads_are_said_to_be_none():
    with pytest.raises(rt.InputError, match="`heads` of attention is 0; wanted at least 1"):
        layers.Attention(16, heads=0)
    with pytest.raises(rt.BackendError, match="There is no backend None"), rt.backend(None):  # type: ignore[arg-type]
        pass
