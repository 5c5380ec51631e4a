"""Every layer of the catalogue through every contract."""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import torch

from ritornello import layers
from ritornello.testing.contracts import CONTRACTS
from ritornello.testing.subject import Subject

WIDTH = 32


def subjects():
    """One for each layer and each of the variants that its oracle names."""
    for role in ("mixer", "feed_forward"):
        for name in layers.catalogue(role):
            try:
                oracle = importlib.import_module(f"tests.oracles.{name}")
            except ModuleNotFoundError:
                yield pytest.param(Subject(partial(layers.build, name, WIDTH)), id=name)
                continue
            for variant, options in oracle.VARIANTS.items():
                yield pytest.param(
                    Subject(partial(layers.build, name, WIDTH, **options), oracle.forward), id=f"{name}:{variant}"
                )


@pytest.mark.conformance
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("subject", list(subjects()))
def test_contract(subject, contract, dtype):
    contract(subject, dtype)
