"""Attention by other weights than a softmax's: beside the plain one, over many steps, and what cannot be."""

from __future__ import annotations

import importlib

import pytest
import torch

from ritornello import layers
from ritornello.errors import InputError
from ritornello.layers import URPEAttention
from ritornello.layers.parts.cached_heads import BLOCK
from ritornello.testing.subject import Subject, close

WIDTH = 16


@torch.no_grad()
def test_urpe_that_has_learned_nothing_is_attention() -> None:
    torch.manual_seed(0)
    urpe, plain = URPEAttention(WIDTH, heads=2, kv_heads=1), layers.Attention(WIDTH, heads=2, kv_heads=1)
    plain.load_state_dict({n.removeprefix("attention."): t for n, t in urpe.state_dict().items() if n != "scale"})
    x = torch.randn(2, 11, WIDTH)
    torch.testing.assert_close(urpe(x)[0], plain(x)[0])


@pytest.mark.parametrize("name", ["relu_attention", "urpe_attention"])
@torch.no_grad()
def test_more_steps_than_are_held_at_once(name: str) -> None:
    layer = Subject(lambda: layers.build(name, WIDTH, heads=2)).layer()
    x = torch.randn(1, BLOCK + 5, WIDTH, dtype=torch.float64)
    oracle = importlib.import_module(f"tests.oracles.{name}")
    close(layer(x)[0], oracle.forward(layer, x), torch.float64, name)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("relu_attention", {"gamma": 0.0}, "`gamma` of relu_attention is 0.0"),
        ("relu_attention", {"key_size": 3}, "`key_size` of relu_attention is 3"),
        ("urpe_attention", {"distances": 0}, "`distances` of urpe_attention is 0"),
        ("urpe_attention", {"heads": 4, "kv_heads": 3}, "kv_heads"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        layers.build(name, WIDTH, **options)
