"""Progress on a terminal, where there is much to read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["progress"]

T = TypeVar("T")
MUCH = 1 << 28
"""Bytes below which nobody waits."""


def progress(items: Sequence[T], size: Callable[[T], int], title: str) -> Iterator[T]:
    """The items; a bar of their bytes on standard error while they come, if it is a terminal and they are many."""
    total = sum(size(item) for item in items)
    if total < MUCH or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task, size(item))
