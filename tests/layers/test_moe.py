"""The mixture of experts: what chooses them, beside what the conformance suite sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ritornello as rt
from ritornello.layers import build
from ritornello.testing.subject import close
from tests.oracles import moe as oracle


def biased() -> Any:
    torch.manual_seed(0)
    layer: Any = build("moe", 16, experts=6, top_k=2, hidden=8, routing="sigmoid", choice_bias=True).double()
    layer.choice_bias.normal_()
    return layer


@torch.no_grad()
def test_a_bias_chooses_and_does_not_weigh() -> None:
    layer, x = biased(), torch.randn(2, 9, 16, dtype=torch.float64)
    y = layer(x)[0]
    close(y, oracle.forward(layer, x), torch.float64, "with biases")
    layer.choice_bias += 100.0  # of all alike
    close(layer(x)[0], y, torch.float64, "a bias of all experts")
    layer.choice_bias.zero_()
    assert not torch.allclose(layer(x)[0], y, atol=1e-3), "the biases choose nothing"


def test_a_bias_is_saved_stays_wide_and_gets_no_gradient() -> None:
    layer = biased()
    assert "choice_bias" in layer.state_dict() and "choice_bias" not in dict(layer.named_parameters())
    layer(torch.randn(1, 4, 16, dtype=torch.float64))[0].sum().backward()
    assert layer.router.weight.grad.any() and layer.choice_bias.grad is None
    model = rt.LanguageModel(rt.ModelConfig(9, 16, "min_gru", 1, ffn=("moe", {"experts": 4, "choice_bias": True})))
    ffn: Any = model.to_dtype(torch.bfloat16).backbone.blocks[0].ffn  # type: ignore[union-attr]
    assert (ffn.router.weight.dtype, ffn.choice_bias.dtype) == (torch.bfloat16, torch.float32)


@torch.no_grad()
def test_the_router_stays_wide_where_autocast_is_not() -> None:
    """Two experts that bfloat16 cannot tell apart."""
    layer: Any = build("moe", 16, experts=2, top_k=1, hidden=8)
    layer.router.weight[:] = torch.tensor([[1.0], [1.001]])
    x = torch.ones(1, 1, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.choose(layer.route(x[0]))[1].item() == 1
    half = layer.to(torch.bfloat16)
    assert half.route(x[0].to(torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": 3}, "`groups` of moe is 3, which does not divide `experts` = 8"),
        ({"groups": 4, "top_groups": 5}, "`top_groups` of moe is 5; wanted 1 … 4"),
        (
            {"groups": 4, "top_groups": 1, "top_k": 3},
            "`top_groups` of moe is 1; wanted 2 … 4.* hold the 3 of",
        ),
    ],
)
def test_groups_that_hold_too_few_are_refused(options: dict, said: str) -> None:
    with pytest.raises(rt.InputError, match=said):
        build("moe", 16, **options)
