"""RWKV-7's value of the first layer, its first values and tags."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers import RWKV7, Call
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY, tagged
from ritornello.sequence import Sequence
from ritornello.testing.subject import Subject, close
from tests.oracles import rwkv7 as oracle
from tests.oracles.numpy_parts import rows, weights

WIDTH = 32


def test_later_layers_mix_in_the_values_of_the_first() -> None:
    first, second = (Subject(lambda i=i: RWKV7(WIDTH, heads=2, place=(i, 2))).layer() for i in (0, 1))
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    call = Call(Sequence.of(x))
    with torch.no_grad():
        before, _ = first.advance(x, None, call)
        got, _ = second.advance(before, None, call)
        alone, _ = second.advance(before, None, Call(Sequence.of(x), carry={"rwkv7": torch.zeros_like(x)}))
    values = rows(lambda r: oracle.row(first, weights(first), r)[1], x)
    want = [oracle.row(second, weights(second), b, v)[0] for b, v in zip(before.numpy(), values.numpy(), strict=True)]
    close(got, torch.stack([torch.from_numpy(w) for w in want]), torch.float64, "the second layer")
    assert not torch.allclose(alone, got), "the first layer's values are not read"


def test_the_values_of_a_first_layer_that_reads_backward_stand_at_their_steps() -> None:
    first, second = (Subject(lambda i=i: RWKV7(WIDTH, heads=2, place=(i, 2))).layer() for i in (0, 1))
    first.direction = "backward"
    x = torch.randn(2, 11, WIDTH, dtype=torch.float64)
    call = Call(Sequence.of(x))
    with torch.no_grad():
        before, _ = first.advance(x, None, call)
        got, _ = second.advance(before, None, call)
        values = rows(lambda r: oracle.row(first, weights(first), r)[1], x.flip(1)).flip(1)
        want, _ = second.advance(before, None, Call(Sequence.of(x), carry={"rwkv7": values}))
    close(got, want, torch.float64, "the second layer")


def test_a_later_layer_alone_is_refused() -> None:
    with pytest.raises(InputError, match="number 1 of 2"):
        RWKV7(WIDTH, place=(1, 2))(torch.zeros(1, 1, WIDTH))
    with pytest.raises(InputError, match="0 ≤ i < n"):
        RWKV7(WIDTH, place=(2, 2))
    with pytest.raises(InputError, match="both"):
        RWKV7(WIDTH, place=(0, 2), direction="both")


def test_first_values() -> None:
    layer = RWKV7(WIDTH, heads=2, place=(1, 3))
    half = torch.tensor(0.5)
    close(layer.shift_mix[0, 16], 1 - half ** (0.2 * 2 / 3), torch.float32, "μ of r")
    close(layer.shift_mix[1, 16], 1 - half ** (0.9 * 2 / 3), torch.float32, "μ of w")
    close(layer.norm.weight, torch.full((WIDTH,), (2 / 3) ** 0.7), torch.float32, "the norm's weights")
    close(layer.decay_proj.up.bias[[0, -1]], torch.tensor([-8.0, 3.0]), torch.float32, "log-odds of the decay")
    close(layer.rate_proj.up.bias[[0, -1]], torch.tensor([-0.69, 0.31]), torch.float32, "log-odds of the rate")
    close(layer.k_k[[0, -1]], torch.tensor([0.76, 0.66]), torch.float32, "k_k")
    assert not layer.out_proj.weight.any() and not layer.gate_proj.down.weight.any()
    close(layer.k_proj.weight @ layer.k_proj.weight.mT, 0.01 * torch.eye(WIDTH), torch.float32, "keys, orthogonal")
    slow = torch.exp(-(-half).exp() * F.sigmoid(layer.decay_proj.up.bias))
    assert slow.max() > 0.999 and slow.min() < 0.57


def test_tags() -> None:
    assert {name for name, _ in tagged(RWKV7(WIDTH), NO_WEIGHT_DECAY)} == {"shift_mix", "r_k"}
