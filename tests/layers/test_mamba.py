"""Mamba against transformers' module, with its weights; its first values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ritornello.layers import Mamba
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY, tagged
from ritornello.testing.subject import close

WIDTH, STATE = 32, 8


@pytest.fixture
def pair():
    """transformers' mixer in float32, its parameters moved off their initial values, and our layer with the same."""
    mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = mamba.MambaConfig(hidden_size=WIDTH, state_size=STATE, num_hidden_layers=1)
    torch.manual_seed(0)
    theirs = mamba.MambaMixer(config, 0).eval()
    ours = Mamba(WIDTH, state_size=STATE)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    weights = theirs.state_dict()
    weights["conv.weight"] = weights.pop("conv1d.weight").squeeze(1)
    weights["conv.bias"] = weights.pop("conv1d.bias")
    weights["dt_bias"] = weights.pop("dt_proj.bias")
    ours.load_state_dict(weights)
    return ours, theirs


def test_same_numbers_as_transformers(pair) -> None:
    ours, theirs = pair
    x = torch.randn(2, 37, WIDTH)
    with torch.no_grad():
        close(ours(x)[0], theirs(x), torch.float32, "outputs")


def test_same_gradients_as_transformers(pair) -> None:
    ours, theirs = pair
    x = torch.randn(2, 19, WIDTH, requires_grad=True)
    mine = torch.autograd.grad(ours(x)[0].square().sum(), [x, ours.A_log, ours.dt_bias, ours.D])
    other = torch.autograd.grad(theirs(x).square().sum(), [x, theirs.A_log, theirs.dt_proj.bias, theirs.D])
    for got, want in zip(mine, other, strict=True):
        close(got, want, torch.float32, "gradients")


def test_first_values() -> None:
    layer = Mamba(WIDTH)
    close(layer.A_log.exp()[5], torch.arange(1.0, 17), torch.float32, "−A")
    steps = F.softplus(layer.dt_bias)
    assert steps.min() > 9e-4 and steps.max() < 0.11


def test_tags() -> None:
    layer = Mamba(WIDTH)
    assert {name for name, _ in tagged(layer, NO_WEIGHT_DECAY)} == {"A_log", "D", "dt_bias"}
    assert {name for name, _ in tagged(layer, KEEP_FLOAT32)} == {"A_log", "dt_bias"}
