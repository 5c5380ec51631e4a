"""What a layer that is not in the catalogue gets from the base: the same contracts."""

from __future__ import annotations

import pytest
import torch

from ritornello.testing import Subject, check_layer
from ritornello.testing.contracts import CONTRACTS
from tests.layers import toys

SUBJECTS = {
    "token shift": Subject(lambda: toys.TokenShift(6), toys.token_shift),
    "chunk learner": Subject(lambda: toys.ChunkLearner(6), toys.chunk_learner),
}


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_toy(subject, contract):
    contract(subject, torch.float64)


def test_check_layer_names_the_contract_that_is_broken():
    class Leaky(toys.TokenShift):
        kind = "toy_leaky"

        def mix(self, x, state, call):
            y, leaves = super().mix(x, state, call)
            return y + x.mean(1, keepdim=True), leaves

    with pytest.raises(AssertionError, match="cut at"):
        check_layer(lambda: Leaky(6), dtypes=iter([torch.float64]))
    assert "any_cut" in check_layer(lambda: toys.TokenShift(6), dtypes=[torch.float64])
