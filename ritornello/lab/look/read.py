"""The text that was looked at, in pieces that can be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ritornello.lab.look.view import Look

__all__ = ["marks", "read_off"]


def read_off(found: Look) -> Iterator[tuple[str, float]]:
    """The text in pieces that can be shown, each with its bits: those of the tokens that end it, together."""
    waiting = 0.0
    for piece, bits in zip(found.pieces, found.surprise.tolist(), strict=True):
        waiting += bits
        if piece:
            yield piece, waiting
            waiting = 0.0
    if waiting:
        yield "\N{REPLACEMENT CHARACTER}", waiting


def marks(pieces: Sequence[str]) -> list[str]:
    """Pieces of text with white space that can be seen."""
    seen = str.maketrans({"\n": "↵", "\t": "→", " ": "·", "\r": "←", "\0": "∅"})
    return ["".join(c if c.isprintable() else "�" for c in p.translate(seen)) for p in pieces]
