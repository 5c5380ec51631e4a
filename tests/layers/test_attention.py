"""Attention: what layers of one model share, and options that do not go together."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello.layers import build


@torch.no_grad()
def test_layers_with_other_rotations_do_not_share_their_angles() -> None:
    """Where all rows are at one place a model computes the angles once; they are those of the layer's own rotation."""
    torch.manual_seed(0)
    slow = ("attention", {"rope_scaling": {"factor": 8.0}})
    model = rt.LanguageModel(rt.ModelConfig(50, 32, pattern=[slow, "attention"], depth=2, init_std=1.0)).eval()
    ids, mask = torch.randint(50, (2, 20)), torch.ones(2, 20, dtype=torch.bool)
    mask[1, :5] = False
    torch.testing.assert_close(model(ids[:1])[0][0], model(ids, mask=mask)[0][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "scaling", [{}, {"factor": 0.0}, {"factor": 2.0, "low": 1.0}, {"factor": 2.0, "length": 8, "turns": 3}]
)
def test_a_scaling_that_says_nothing_is_refused(scaling: dict) -> None:
    with pytest.raises(rt.InputError, match=r"`rope_scaling` of attention is .* wanted a positive factor"):
        build("attention", 32, rope_scaling=scaling)
