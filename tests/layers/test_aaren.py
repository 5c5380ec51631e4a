"""Aaren at the ends of the exponential's range, and its state's free scale."""

from __future__ import annotations

import torch

import ritornello as rt
from ritornello.layers import Aaren
from ritornello.testing.subject import close


def test_scores_of_thousands_neither_overflow_nor_vanish() -> None:
    layer = Aaren(16, heads=2)
    x = 1e4 * torch.randn(2, 40, 16)
    y, state = layer(x)
    (grad,) = torch.autograd.grad(y.sum(), [layer.query])
    assert state["m"].abs().max() > 1e3, "the case is no test"
    assert torch.isfinite(y).all() and torch.isfinite(grad).all() and (state["w"] >= 1 - 1e-6).all()
    assert y.abs().sum(-1).all()


def test_equal_states_may_differ_in_scale() -> None:
    layer = Aaren(16, heads=2).double()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    with torch.no_grad():
        _, state = layer(x[:, :5])
        m, u, w = state["m"], state["u"], state["w"]
        moved = {"m": m - 1.5, "u": u * torch.tensor(1.5).exp(), "w": w * torch.tensor(1.5).exp()}
        other = rt.State(state.kind, state.version, state.spec, moved)
        for name, leaf in layer.canonical(moved).items():
            close(leaf, layer.canonical(state.leaves)[name], torch.float32, name)
        close(layer(x[:, 5:], other)[0], layer(x[:, 5:], state)[0], torch.float32, "outputs")
