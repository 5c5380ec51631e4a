"""What all tests share: reproducible examples, one thread per worker, and the sample of the conformance product."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict

import pytest
import torch
from hypothesis import HealthCheck, settings

SAMPLE = 12
"""One in so many points of the conformance product is run by default."""

settings.register_profile(
    "fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance", choices=("sample", "all"), default="sample", help="how much of the conformance product is run"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a fixed sample of the tests marked `conformance`: of each test, for each first parameter, 1 in SAMPLE."""
    if config.getoption("conformance") == "all":
        return
    groups: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("conformance"):
            subject, _, _ = item.name.partition("[")[2].partition("-")
            groups[item.nodeid.partition("[")[0], subject.rstrip("]")].append(item)
    left_out = set()
    for group in groups.values():
        group.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        left_out |= set(group[-(-len(group) // SAMPLE) :])
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
