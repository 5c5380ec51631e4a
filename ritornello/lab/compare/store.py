"""What a comparison has found so far: one JSON line for each finished piece of work, whole or absent."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ritornello.errors import CheckpointError

__all__ = ["Store"]

Record = dict[str, Any]


class Store:
    """A file of JSON lines that survives a kill at any moment.

    A line is appended by one write and forced to the disk. A line that a kill left unfinished has no end; it is cut off
    before the next one is written, and not read.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[Record]:
        """All whole lines, in the order in which they were written.

        Raises:
            CheckpointError: a line is no record; the file is another one, or it was damaged.
        """
        if not self.path.exists():
            return []
        lines = enumerate(self.path.read_bytes().split(b"\n")[:-1], 1)
        return [self._record(number, line) for number, line in lines if line]

    def _record(self, number: int, line: bytes) -> Record:
        with suppress(ValueError):
            if isinstance(record := json.loads(line), dict):
                return record
        raise CheckpointError(
            f"{str(self.path)!r}, line {number}, is no record of a run: {line[:40].decode(errors='replace')!r}. Remove "
            "the line, and what it held is done again; or give another --out."
        )

    def prepare(self) -> None:
        """Make sure that there is such a file and that it can be written, before hours have gone into what it is to
        hold."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab"):
            pass

    def append(self, record: Record) -> None:
        line = json.dumps(record, allow_nan=True).encode() + b"\n"
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _cut_unfinished(handle)
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        except OSError as error:
            error.filename = str(self.path)
            raise
        finally:
            os.close(handle)


def _cut_unfinished(handle: int) -> None:
    """Remove what follows the last end of a line."""
    size = end = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return
    while end > 0:
        begin = max(0, end - 2**16)
        found = os.pread(handle, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    os.ftruncate(handle, end)
