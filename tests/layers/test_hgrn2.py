"""HGRN2's learned bounds go from layer to layer."""

from __future__ import annotations

import pytest
import torch

from ritornello.errors import InputError
from ritornello.layers import HGRN2, Call
from ritornello.sequence import Sequence
from ritornello.testing.subject import close


def test_learned_bounds_start_as_the_share_of_the_depth() -> None:
    x, carry = torch.randn(2, 9, 16, dtype=torch.float64), {}
    for i in range(4):
        learned = HGRN2(16, heads=2, learned_bound=True, place=(i, 4)).double()
        fixed = HGRN2(16, heads=2, lower_bound=i / 4).double()
        fixed.load_state_dict({n: w for n, w in learned.state_dict().items() if n != "bound"})
        got, _ = learned.advance(x, None, Call(Sequence.of(x), carry=carry))
        close(got, fixed(x)[0], torch.float32, f"layer {i}")  # log(n − i) was rounded to float32
        assert (learned.bound is None) == (i == 0)
        if learned.bound is not None:
            (gradient,) = torch.autograd.grad(got.sum(), [learned.bound])
            assert gradient.all()


def test_a_later_layer_alone_is_refused() -> None:
    with pytest.raises(InputError, match="number 1 of 2"):
        HGRN2(16, learned_bound=True, place=(1, 2))(torch.zeros(1, 1, 16))
