"""Which layer of how many: layers whose first values change with the depth, or that hand something on, are told."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ritornello.layers import find
from ritornello.models.config import Entry, Parallel, Repeat

__all__ = ["placed"]


def placed(entries: Iterable[Entry | None]) -> tuple[Entry | None, ...]:
    """The entries with ``place = (i, n)`` for every layer that takes it and was not given it: i-th of n of its name.

    The blocks of a `Repeat` count once, however often they run.
    """
    entries = tuple(entries)
    counts = Counter(name for entry in entries for name, _ in _layers(entry))
    seen: Counter[str] = Counter()

    def fill(entry: Any) -> Any:
        if isinstance(entry, Parallel):
            return Parallel(*map(fill, entry.mixers), combine=entry.combine)
        if isinstance(entry, Repeat):
            return Repeat(entry.n, *map(fill, entry.blocks))
        for name, options in _layers(entry):
            if "place" in inspect.signature(find(name)).parameters:
                seen[name] += 1
                return name, {"place": (seen[name] - 1, counts[name]), **options}
        return entry

    return tuple(map(fill, entries))


def _layers(entry: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The layers of an entry, (name, options) each, in the order in which they are built."""
    if isinstance(entry, Parallel | Repeat):
        for part in entry.mixers if isinstance(entry, Parallel) else entry.blocks:
            yield from _layers(part)
    elif entry is not None:
        yield (entry, {}) if isinstance(entry, str) else entry
