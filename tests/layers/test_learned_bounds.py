"""The bounds of HGRN and HGRN2 are learned from layer to layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ritornello.errors import InputError
from ritornello.layers import Call, build
from ritornello.models import ModelConfig
from ritornello.models.backbone import Backbone
from ritornello.sequence import Sequence
from ritornello.testing.subject import close
from tests.oracles import hgrn

KINDS = ("hgrn", "hgrn2")
WIDTH = 16


def stack(kind: str, count: int) -> list[Any]:
    return [build(kind, WIDTH, place=(i, count)).double() for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_they_start_as_the_share_of_the_depth(kind: str) -> None:
    x, carry = torch.randn(2, 9, WIDTH, dtype=torch.float64), {}
    for i, learned in enumerate(stack(kind, 4)):
        fixed = build(kind, WIDTH, lower_bound=i / 4).double()
        fixed.load_state_dict({n: w for n, w in learned.state_dict().items() if n != "bound.logit"})
        got, _ = learned.advance(x, None, Call(Sequence.of(x), carry=carry))
        close(got, fixed(x)[0], torch.float32, f"layer {i}")  # log(n − i) was rounded to float32
        assert (learned.bound.logit is None) == (i == 0)
        if learned.bound.logit is not None:
            (gradient,) = torch.autograd.grad(got.sum(), [learned.bound.logit])
            assert gradient.all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_layer_alone_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match="number 1 of 2"):
        build(kind, WIDTH, place=(1, 2))(torch.zeros(1, 1, WIDTH))


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_have_the_same_bound(kind: str) -> None:
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    layers, outputs = stack(kind, 3), {}
    for direction in ("forward", "backward", "both"):
        carry: dict = {}
        for layer in layers:
            layer.direction = direction
            outputs[direction], _ = layer.advance(x, None, Call(Sequence.of(x), carry=carry))
    close(outputs["both"], outputs["forward"] + outputs["backward"], torch.float64, "both")


def test_a_model_is_that_of_flash_linear_attention() -> None:
    """Bounds as running sums of a softmax over all layers, without the first: its logits, brought to ours."""
    count = 4
    model: Any = Backbone(ModelConfig(vocab_size=8, width=WIDTH, pattern="hgrn", depth=count, ffn=None)).double()
    r = torch.randn(count, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        for i, block in enumerate(model.blocks[1:], 1):
            block.mixer.bound.logit.copy_(r[i] - torch.cat([r[:1], r[i + 1 :]]).logsumexp(0))
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    got, _ = model.advance(x, None, Call(Sequence.of(x)))
    for block, bound in zip(model.blocks, hgrn.shared_bounds(r.numpy()), strict=True):
        x = x + hgrn.forward(block.mixer, block.mixer_norm(x), bound)
    close(got, model.final_norm(x), torch.float64, "a model of HGRN")
    assert all(g.all() for g in torch.autograd.grad(got[:, -1].sum(), [b.mixer.bound.logit for b in model.blocks[1:]]))
