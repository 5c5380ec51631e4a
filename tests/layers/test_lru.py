"""The LRU's first values, what they do to a long memory, and its tags."""

from __future__ import annotations

import math

import torch

from ritornello.layers import LRU
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY, tagged
from ritornello.testing.subject import close


def radius(layer):
    return torch.exp(-layer.cell.nu_log.detach().exp())


def test_the_ring() -> None:
    torch.manual_seed(0)
    layer = LRU(16, state_size=4096, r_min=0.6, r_max=0.9, max_phase=0.5)
    angle = layer.cell.theta_log.detach().exp()
    assert radius(layer).min() > 0.599 and radius(layer).max() < 0.901
    assert abs(float(radius(layer).square().mean()) - (0.6**2 + 0.9**2) / 2) < 0.01, "uniform by area"
    assert angle.max() < 0.501 and abs(float(angle.mean()) - 0.25) < 0.02


def test_states_of_white_noise_start_with_the_variance_of_their_input() -> None:
    """γ = √(1 − |a|²): the sum of a geometric series of variances is one, at every radius."""
    torch.manual_seed(0)
    layer = LRU(64, r_min=0.5, r_max=0.95).double()
    close(layer.cell.gamma_log.exp().square() + radius(layer).square(), torch.ones(64), torch.float32, "γ² + |a|²")
    with torch.no_grad():
        _, state = layer(torch.randn(512, 200, 64, dtype=torch.float64))
    power = state["h"].square().sum(-1).mean(0)
    driven = layer.cell.B.weight.detach().square().sum(1).view(2, -1).sum(0)
    assert torch.allclose(power, driven, rtol=0.4) and math.isclose(power.mean(), driven.mean(), rel_tol=0.05)


def test_the_ends_of_the_ring_are_finite() -> None:
    for ends in ((0.0, 0.0), (1.0, 1.0)):
        layer = LRU(8, r_min=ends[0], r_max=ends[1], max_phase=0.0)
        y = layer(torch.randn(1, 50, 8))[0]
        grads = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
        assert all(torch.isfinite(t).all() for t in (y, *layer.parameters(), *grads))


def test_tags() -> None:
    layer = LRU(8)
    recurrent = {"cell.nu_log", "cell.theta_log", "cell.gamma_log"}
    assert {name for name, _ in tagged(layer, KEEP_FLOAT32)} == recurrent
    assert {name for name, _ in tagged(layer, NO_WEIGHT_DECAY)} == {*recurrent, "cell.D"}
