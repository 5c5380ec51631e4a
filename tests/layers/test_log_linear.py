"""Log-linear attention around many layers, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers import LogLinear
from ritornello.testing.subject import Subject, close

WIDTH = 32


INNER = "delta_net gated_delta_net gla hgrn2 kda lightnet linear_attention mamba2 retention"


@pytest.mark.parametrize("inner", INNER.split())
def test_buckets_of_equal_weight_are_the_inner_layer(inner: str) -> None:
    """Every earlier step lies in one bucket, with all transitions since."""
    layer = Subject(lambda: LogLinear(WIDTH, inner=inner, levels=7)).layer()
    layer.level_proj = nn.Linear(WIDTH, layer.level_proj.out_features, dtype=torch.float64)
    x = torch.randn(2, 37, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        layer.level_scale.fill_(1.0)
        layer.level_proj.weight.zero_()
        layer.level_proj.bias.fill_(math.log(math.e - 1))  # its softplus is 1
        close(layer(x)[0], layer.inner(x)[0], torch.float64, inner)


def test_steps_beyond_the_last_level_are_refused() -> None:
    layer = LogLinear(WIDTH, inner="gla", levels=5)
    _, state = layer(torch.randn(1, 16, WIDTH))
    with pytest.raises(InputError, match="reads 16 steps at most, and was given 17"):
        layer(torch.randn(1, 1, WIDTH), state)


def test_layers_without_a_decaying_matrix_are_refused() -> None:
    for inner in ("min_gru", "m2rnn", "implicit_ssm"):
        with pytest.raises(InputError, match="no matrix state"):
            LogLinear(WIDTH, inner=inner)
    for inner in ("rwkv6", "rwkv7", "delta_product"):
        with pytest.raises(InputError, match="takes decays and delta rules"):
            LogLinear(WIDTH, inner=inner)(torch.randn(1, 3, WIDTH))
