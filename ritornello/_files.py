"""Files that are whole or absent: what a reader finds was written to its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["replace"]


def replace(path: str | Path, write: Callable[[str], None]) -> None:
    """Write a file beside `path` with ``write(temporary name)``, force it to the disk, and put it in the place of
    `path`.

    Whatever fails on the way — a full disk, a kill — leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private to its owner
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and str(error.filename or temporary).endswith(".part"):
            error.filename = str(path)  # that is what the reader asked for; a full disk names no file at all
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise
