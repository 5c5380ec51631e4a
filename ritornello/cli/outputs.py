"""Places to write to, looked at before the work whose results they are to take."""

from __future__ import annotations

import os
from pathlib import Path

from ritornello.errors import InputError

__all__ = ["demand_file", "demand_folder"]


def demand_file(path: Path, option: str) -> None:
    """Refuse what is no place for a file; folders that are missing will be made."""
    if path.is_dir():
        raise InputError(f"`{option}` is {str(path)!r}, which is a folder. Give the name of a file in it.")
    demand_folder(path if not path.exists() else path.parent, option)


def demand_folder(path: Path, option: str) -> None:
    """Refuse what cannot be a folder to write to; it need not be there yet."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"`{option}` is {str(path)!r}, which is no UTF-8: safetensors reads no such names.") from None
    there = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    if not there.is_dir():
        raise InputError(f"`{option}` leads into {str(there)!r}, which is a file. Give another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"`{option}` leads into {str(there)!r}, which may not be written to. Give another place.")
