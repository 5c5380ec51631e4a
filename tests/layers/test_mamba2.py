"""Mamba-2 against transformers' module, with its weights."""

from __future__ import annotations

import pytest
import torch

from ritornello.layers import Mamba2
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY, tagged
from ritornello.testing.subject import close

WIDTH, HEADS, STATE, GROUPS = 32, 8, 16, 2


@pytest.fixture
def pair():
    """transformers' mixer in float32, its parameters moved off their initial values, and our layer with the same."""
    mamba2 = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    config = mamba2.Mamba2Config(
        hidden_size=WIDTH, num_heads=HEADS, head_dim=2 * WIDTH // HEADS, state_size=STATE, n_groups=GROUPS,
        num_hidden_layers=1, chunk_size=8, layer_norm_epsilon=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = mamba2.Mamba2Mixer(config, 0).eval()
    ours = Mamba2(WIDTH, heads=HEADS, groups=GROUPS, state_size=STATE)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    weights = theirs.state_dict()
    weights["conv.weight"] = weights.pop("conv1d.weight").squeeze(1)
    weights["conv.bias"] = weights.pop("conv1d.bias")
    for name in ("A_log", "dt_bias"):
        weights[f"decay.{name}"] = weights.pop(name)
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
    mine = torch.autograd.grad(ours(x)[0].square().sum(), [x, ours.decay.A_log, ours.decay.dt_bias, ours.D])
    other = torch.autograd.grad(theirs(x).square().sum(), [x, theirs.A_log, theirs.dt_bias, theirs.D])
    for got, want in zip(mine, other, strict=True):
        close(got, want, torch.float32, "gradients")


def test_tags() -> None:
    layer = Mamba2(WIDTH)
    assert {name for name, _ in tagged(layer, NO_WEIGHT_DECAY)} == {"D", "decay.A_log", "decay.dt_bias"}
    assert {name for name, _ in tagged(layer, KEEP_FLOAT32)} == {"decay.A_log", "decay.dt_bias"}
