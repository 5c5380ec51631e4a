"""Sizes that are no sizes are refused where a layer is built."""

from __future__ import annotations

import inspect

import pytest

from ritornello.errors import InputError
from ritornello.layers import build, catalogue

MAY_BE_ZERO = {"rope_size"}
SIZES = [
    (name, option.name)
    for role in ("mixer", "feed_forward")
    for name, layer in catalogue(role).items()
    for option in inspect.signature(layer).parameters.values()
    if option.annotation in ("int", "int | None") and option.name not in MAY_BE_ZERO
]


@pytest.mark.parametrize("place", [0, (1,), (2, 2), (-1, 3)])
def test_no_place_is_refused(place: object) -> None:
    with pytest.raises(InputError, match=r"`place` of hgrn is .* wanted"):
        build("hgrn", 16, place=place)


@pytest.mark.parametrize(("name", "option"), SIZES)
def test_no_size_is_refused(name: str, option: str) -> None:
    """Nor is zero taken for a default: that is None."""
    for size in (0, -1):
        with pytest.raises(InputError, match=f"`{option}`"):
            build(name, **{"width": 16} | {option: size})
