"""The other libraries, imported where a row needs them, each in its best form for a CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ritornello.errors import RitornelloError

__all__ = ["PEERS", "MissingPeerError", "peer", "versions"]

PEERS = {
    "transformers": "transformers",
    "mlstm_kernels": "mlstm_kernels",
    "minGRU_pytorch": "minGRU-pytorch",
    "torchrecurrent": "torchrecurrent",
    "titans_pytorch": "titans-pytorch",
}
"""Module → distribution, of everything in the extra `peers`."""

RIVALS = ("fla", "causal_conv1d", "mamba_ssm", "kernels")
"""What transformers would take instead of its own functions where it is there; none of it is for a CPU."""


class MissingPeerError(RitornelloError):
    """A peer is not installed, or cannot be imported here."""


def peer(module: str, name: str) -> Any:
    """A function or class of a peer's module.

    Raises:
        MissingPeerError: it is not there.
    """
    distribution = PEERS[module.partition(".")[0]]
    try:
        if distribution == "transformers":
            with _without(RIVALS):
                importlib.import_module("transformers.utils.logging").set_verbosity_error()
                return getattr(importlib.import_module(module), name)
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MissingPeerError(
            f"{distribution} is not there ({error}); ours is measured alone. Run: pip install 'ritornello[peers]'"
        ) from error


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Make some packages look as if they were not installed, for the imports inside."""
    kept = {name: sys.modules.get(name) for name in names}
    try:
        for name in names:
            sys.modules[name] = None  # type: ignore[assignment]  # an import of it is an ImportError
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def versions() -> dict[str, str | None]:
    """The version of this package and of every peer; None where it is not installed."""
    return {distribution: _version(distribution) for distribution in ("ritornello", *PEERS.values())}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
