"""Text files as data: a path, a folder, a glob or ``-`` (standard input) names documents of bytes."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ritornello.errors import InputError, nearest

__all__ = ["Document", "read", "split", "walk"]

SNIFFED = 8192
"""How many bytes of a file tell whether it is binary."""


@dataclass(frozen=True)
class Document:
    """A name to print, and the text as bytes."""

    name: str
    text: bytes


def read(places: Iterable[str | Path]) -> list[Document]:
    """The documents that `places` name, in the order given, a folder's sorted by path; of equal texts the first.

    In a folder hidden, empty and binary files are skipped; a file that is named itself is taken as it is.

    Raises:
        InputError: a place that is not there, cannot be read, or holds no text.
    """
    documents: dict[bytes, Document] = {}
    for place in places:
        found = list(_of_place(str(place)))
        if not found:
            raise InputError(f"`data` is {str(place)!r}, where there is no text. Give a file with text in it.")
        for document in found:
            documents.setdefault(hashlib.sha256(document.text).digest(), document)
    if not documents:
        raise InputError("`data` names nothing. Give a file, a folder, a glob, or - for standard input.")
    return list(documents.values())


def split(documents: Sequence[Document], heldout: float) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents: whole files, about `heldout` of all bytes, chosen by a hash of what is in them.

    The choice depends on the texts alone, not on names or order. One document by itself is cut near its end.

    Raises:
        InputError: `heldout` not within (0, 1), or a single document too short to be cut.
    """
    if not 0 < heldout < 1:
        raise InputError(f"`heldout` is {heldout}; wanted a part of the data between 0 and 1, e.g. 0.05.")
    if len(documents) == 1:
        return _cut(documents[0], heldout)
    by_hash = sorted(range(len(documents)), key=lambda i: hashlib.sha256(documents[i].text).digest())
    wanted = heldout * sum(len(d.text) for d in documents)
    chosen: set[int] = set()
    taken = 0
    for i in by_hash[:-1]:  # one at least is left to train on
        size = len(documents[i].text)
        if not chosen or taken + size <= 1.1 * wanted:  # a file far too large is passed over
            chosen.add(i)
            taken += size
        if taken >= 0.9 * wanted:
            break
    return (
        [d for i, d in enumerate(documents) if i not in chosen],
        [d for i, d in enumerate(documents) if i in chosen],
    )


def _cut(document: Document, heldout: float) -> tuple[list[Document], list[Document]]:
    """A document's beginning and its end, parted at a line break where there is one near."""
    text = document.text
    if len(text) < 16:
        raise InputError(
            f"`data` is {document.name!r} with {len(text)} bytes; wanted at least 16 to train and to test on."
        )
    at = int(len(text) * (1 - heldout))
    at = text.rfind(b"\n", len(text) // 2, at) + 1 or max(1, min(at, len(text) - 1))
    return [Document(document.name, text[:at])], [Document(f"{document.name} (end)", text[at:])]


def walk(folder: Path, leave_out: Iterable[str] = ()) -> Iterator[Document]:
    """The text files below `folder`, sorted by path, without hidden ones and the folders named in `leave_out`."""
    leave_out = set(leave_out)
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in leave_out)
        for name in sorted(files):
            path = Path(where, name)
            if name.startswith(".") or not path.is_file():
                continue
            with open(path, "rb") as file:
                start = file.read(SNIFFED)
                if start and b"\0" not in start:
                    yield Document(path.relative_to(folder).as_posix(), start + file.read())


def _of_place(place: str) -> Iterator[Document]:
    path = Path(place)
    try:
        if place == "-":
            yield from _named("standard input", sys.stdin.buffer.read())
        elif path.is_dir():
            yield from walk(path)
        elif path.exists():
            yield from _named(place, path.read_bytes())
        elif glob.has_magic(place):
            for name in sorted(glob.glob(place, recursive=True)):
                yield from walk(Path(name)) if os.path.isdir(name) else _named(name, Path(name).read_bytes())
        else:
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            hint = nearest(path.name, beside) if 0 < len(beside) < 50 else "Check the path."
            raise InputError(f"`data` is {place!r}, and there is no such file. {hint}")
    except OSError as error:
        raise InputError(f"`data` is {place!r}, which cannot be read: {error.strerror}.") from None


def _named(name: str, text: bytes) -> Iterator[Document]:
    """A document that was asked for by name, unless it is empty."""
    if text:
        yield Document(name, text)
