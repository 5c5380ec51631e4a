"""Patterns as words, for command lines: ``gla,gla,attention:window=128``."""

from __future__ import annotations

import json
from typing import Any

from ritornello.errors import InputError

__all__ = ["parse_pattern"]


def parse_pattern(words: str, separator: str = ",") -> list[Any]:
    """``"gla,attention:window=128:heads=4"`` → ``["gla", ("attention", {"window": 128, "heads": 4})]``.

    Raises:
        InputError: an option without a value.
    """
    entries: list[Any] = []
    for word in words.split(separator):
        name, *options = word.strip().split(":")
        pairs = [option.partition("=") for option in options]
        if wrong := next((key for key, equals, _ in pairs if not equals), None):
            raise InputError(f"`pattern` has {word.strip()!r}; an option is written {wrong}=VALUE.")
        entries.append((name, {key: _value(text) for key, _, text in pairs}) if pairs else name)
    return entries


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
