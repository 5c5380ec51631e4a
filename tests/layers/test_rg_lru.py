"""Griffin's recurrent block against transformers' module, with its weights; its first step, first values and slope."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ritornello.layers import RGLRU
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY, tagged
from ritornello.testing.subject import close

WIDTH, SIZE, HEADS = 32, 48, 4


@pytest.fixture
def pair():
    """transformers' block in float32 with every parameter drawn anew, and our layer with the same."""
    gemma = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    config = gemma.RecurrentGemmaConfig(hidden_size=WIDTH, lru_width=SIZE, num_attention_heads=HEADS)
    torch.manual_seed(0)
    theirs = gemma.RecurrentGemmaRecurrentBlock(config, 0).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(std=0.3)
    w = theirs.state_dict()
    both = ("recurrent_gate", "input_gate")
    ours = RGLRU(WIDTH, state_size=SIZE, heads=HEADS)
    ours.load_state_dict(
        {
            "in_proj.weight": torch.cat([w["linear_x.weight"], w["linear_y.weight"]]),
            "in_proj.bias": torch.cat([w["linear_x.bias"], w["linear_y.bias"]]),
            "conv.weight": w["conv_1d.weight"].squeeze(1),
            "conv.bias": w["conv_1d.bias"],
            "cell.weight": torch.stack([w[f"rg_lru.{gate}_weight"].mT for gate in both]),
            "cell.bias": torch.stack([w[f"rg_lru.{gate}_bias"].flatten() for gate in both]),
            "cell.Lambda": w["rg_lru.recurrent_param"],
            "out_proj.weight": w["linear_out.weight"],
            "out_proj.bias": w["linear_out.bias"],
        }
    )
    return ours, theirs


def run(theirs, x):
    positions = torch.arange(x.shape[1]).expand(x.shape[0], -1)
    return theirs(x, positions, None, use_cache=False)[0]


def test_same_numbers_as_transformers(pair) -> None:
    ours, theirs = pair
    x = torch.randn(2, 37, WIDTH)
    with torch.no_grad():
        close(ours(x)[0], run(theirs, x), torch.float32, "outputs")


def test_same_gradients_as_transformers(pair) -> None:
    ours, theirs = pair
    x = torch.randn(2, 19, WIDTH, requires_grad=True)
    mine = torch.autograd.grad(ours(x)[0].square().sum(), [x, ours.cell.Lambda, ours.conv.weight])
    other = torch.autograd.grad(
        run(theirs, x).square().sum(), [x, theirs.rg_lru.recurrent_param, theirs.conv_1d.weight]
    )
    for got, want in zip(mine, other, strict=True):
        close(got, want.view(got.shape), torch.float32, "gradients")


def test_a_step_is_the_first_one_once() -> None:
    """What is read after a state of no steps is first; what is read after one step is not."""
    layer = RGLRU(WIDTH).double()
    x = torch.randn(1, 2, WIDTH, dtype=torch.float64)
    none = layer(x[:, :0])[1]
    first, state = layer(x[:, :1], none)
    assert state["position"].tolist() == [1]
    close(first, layer(x)[0][:, :1], torch.float64, "the first step")
    again, _ = layer(x[:, :1], layer.initial_state(1, like=x))
    fresh, _ = layer(x[:, :1], state)
    close(again, first, torch.float64, "the first step again")
    assert not torch.allclose(fresh, first)


def test_gates_that_are_shut_give_finite_gradients() -> None:
    """a = 1 to the last bit: the square root's slope would be infinite."""
    layer = RGLRU(WIDTH)
    with torch.no_grad():
        layer.cell.Lambda.fill_(-200.0)
    x = torch.randn(2, 9, WIDTH)
    grads = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    assert all(torch.isfinite(g).all() for g in grads)


def test_first_values() -> None:
    layer = RGLRU(WIDTH, state_size=1024)
    radius = torch.exp(-F.softplus(layer.cell.Lambda.detach()))
    assert radius.min() > 0.899 and radius.max() < 0.9991
    assert abs(float(radius.square().mean()) - (0.9**2 + 0.999**2) / 2) < 0.01, "uniform by area"


def test_tags() -> None:
    layer = RGLRU(WIDTH)
    for tag in (NO_WEIGHT_DECAY, KEEP_FLOAT32):
        assert [name for name, _ in tagged(layer, tag)] == ["cell.Lambda"]
