"""Put a layer through every contract.

from ritornello.testing import check_layer
check_layer(lambda: MyLayer(32))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ritornello.layers.base import Layer
from ritornello.testing.contracts import CONTRACTS, oracle
from ritornello.testing.subject import Subject
from ritornello.typing import Tensor

__all__ = ["check_layer"]


def check_layer(
    make: Callable[[], Layer],
    reference: Callable[[Layer, Tensor], Tensor] | None = None,
    dtypes: Iterable[torch.dtype] = (torch.float64, torch.float32),
) -> list[str]:
    """Examine a layer, and return the names of the contracts that it keeps.

    Args:
        make: returns a new layer, e.g. ``lambda: MyLayer(32)``.
        reference: ``(layer, x) -> y``, an implementation that is independent of the layer: without one, a wrong
            equation is not seen, and that contract is left out of the list.
        dtypes: of the weights and inputs.

    Raises:
        AssertionError: which contract is broken, and by how much.
    """
    subject = Subject(make, reference)
    dtypes = tuple(dtypes)  # an iterator would be empty after the first contract, and all others kept
    kept = []
    for contract in CONTRACTS:
        if contract is oracle and reference is None:
            continue
        for dtype in dtypes:
            try:
                contract(subject, dtype)
            except AssertionError as broken:
                raise AssertionError(f"{contract.__name__} in {dtype}: {broken}") from broken
        kept.append(contract.__name__)
    return kept
