"""The sequence model: any cut is the same, ids and floats, packing, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ritornello.errors import InputError
from ritornello.models import ModelConfig, SequenceModel

PATTERN = ["gated_delta_net", "lstm", ("attention", {"window": 5})]


def model_of(features: int | None) -> SequenceModel:
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=11, width=16, pattern=PATTERN, init_std=0.2)
    return SequenceModel(config, 7, features).double()


def input_of(features: int | None, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if features is None:
        return torch.randint(11, shape, generator=generator)
    return torch.randn(*shape, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("features", [None, 3])
@pytest.mark.parametrize("cut", [0, 6, 13])
def test_any_cut_is_the_same(features, cut):
    model, x = model_of(features), input_of(features, 2, 13)
    whole, end = model(x)
    assert whole.shape == (2, 13, 7)
    first, middle = model(x[:, :cut])
    second, last = model(x[:, cut:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    for one, two in zip(end.tensors(), last.tensors(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("features", [None, 3])
def test_packing_equals_separate_rows(features):
    model, x = model_of(features), input_of(features, 1, 12)
    packed, state = model(x, cu_seqlens=torch.tensor([0, 5, 12]))
    torch.testing.assert_close(packed, torch.cat([model(x[:, :5])[0], model(x[:, 5:])[0]], 1))
    assert state["position"].tolist() == [5, 7]


@pytest.mark.parametrize("features", [None, 3])
def test_what_is_masked_is_skipped(features):
    model, x = model_of(features), input_of(features, 2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 3:5], mask[1, :4] = False, False
    y, state = model(x.masked_fill(~mask.view(2, 9, *(1,) * (x.dim() - 2)), -1), mask=mask)
    assert not y[~mask].any()
    for row in (0, 1):
        torch.testing.assert_close(y[row, mask[row]], model(x[row : row + 1, mask[row]])[0][0])
    assert state["position"].tolist() == [7, 5]


def test_what_few_steps_need():
    model, x = model_of(None), input_of(None, 2, 9)
    torch.testing.assert_close(model.head(model.hidden(x)[0][:, ::4]), model(x)[0][:, ::4])


def test_every_weight_is_trained_and_counted():
    model = model_of(3)
    model(input_of(3, 2, 6))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.parameter_count == sum(p.numel() for g in model.parameter_groups(0.1) for p in g["params"])


@pytest.mark.parametrize(
    ("features", "x", "told"),
    [
        (3, torch.zeros(2, 4, 2), "wanted (B, T, 3) floats"),
        (3, torch.zeros(2, 4, dtype=torch.long), "wanted (B, T, 3) floats"),
        (3, torch.zeros(2, 4, 3), "is torch.float32, and its weights are torch.float64"),
        (3, torch.zeros(2, 4, 3, device="meta", dtype=torch.float64), "is on meta, and its weights are on cpu"),
        (None, torch.zeros(2, 4), "wanted (B, T) integers"),
        (None, torch.zeros(2, 4, dtype=torch.bool), "wanted (B, T) integers"),
        (None, [[1, 2]], "`x` is a list"),
        (None, torch.full((2, 4), 11), "range from 11 to 11"),
        (None, torch.full((2, 4), -1), "from 0 to 10"),
    ],
)
def test_mistakes(features, x, told):
    with pytest.raises(InputError) as error:
        model_of(features)(x)
    assert told in str(error.value)
