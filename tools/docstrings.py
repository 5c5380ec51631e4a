"""Docstrings as Markdown: the equation first, lists of arguments, code as it stands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

__all__ = ["described", "escaped", "linked", "markdown", "signature"]

SECTION = re.compile(r"^(Args|Returns|Raises|Source|Sources):", re.MULTILINE)
WIDTH = 100


def markdown(docstring: str, without: Iterable[str] = ()) -> str:
    """The docstring as Markdown. Sections named in `without` are left out."""
    parts = []
    for block in re.split(r"\n(?:[ \t]*\n)+", inspect.cleandoc(docstring)):
        found = SECTION.match(block)
        if found is None:
            code = all(line.startswith("    ") for line in block.splitlines())
            parts.append(f"```text\n{inspect.cleandoc(block)}\n```" if code else linked(" ".join(block.split())))
        elif found[1] not in without:
            parts.append(_section(found[1], block[found.end() :]))
    return "\n\n".join(parts)


def _section(title: str, text: str) -> str:
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?= {4}\S)", text) if entry.strip()]
    if title not in ("Args", "Raises"):
        return f"**{title}.** {linked(' '.join(entries))}"
    lines = []
    for entry in entries:
        names, _, said = entry.partition(": ")
        code = ", ".join(f"`{name.strip()}`" for name in names.split(","))
        lines.append(f"- {code}: {linked(said)}")
    return "\n".join([f"**{title}**", "", *lines])


def described(docstring: str) -> dict[str, str]:
    """Name → text, of the section ``Args:`` of a docstring. Names may share a line: ``q, k: (B, T, H, K)``."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", section[1] if section else ""):
        names, _, text = " ".join(entry.split()).partition(": ")
        found |= {name.strip(): text for name in names.split(",")}
    return found


def signature(name: str, thing: object) -> str:
    """``name(x: Tensor, ...) -> Tensor``; an argument a line where it is long."""
    try:
        found = inspect.signature(thing)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return name
    parameters = [p.replace(annotation=_Raw.of(p.annotation)) for p in found.parameters.values() if p.name != "self"]
    found = found.replace(parameters=parameters, return_annotation=_Raw.of(found.return_annotation))
    line = f"{name}{found}".replace(") -> None", ")")
    if len(line) <= WIDTH:
        return line
    shown = str(found)
    inner, _, returns = shown[1:].rpartition(")")
    return f"{name}(\n" + "".join(f"    {part},\n" for part in _split(inner)) + f"){returns}".replace(" -> None", "")


def _split(arguments: str) -> list[str]:
    """At the commas that are not within brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


class _Raw:
    """An annotation that is printed as it was written."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text

    @classmethod
    def of(cls, annotation: object):
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        return annotation if annotation is inspect.Parameter.empty else cls(text.replace("torch.", ""))


def linked(text: str) -> str:
    """Text in which arXiv numbers are links, and what Markdown or HTML would swallow is not."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(piece if piece.startswith("`") else _link(piece) for piece in pieces)


def _link(text: str) -> str:
    text = re.sub(r"([*\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def escaped(text: str) -> str:
    """A cell of a table."""
    return text.replace("|", "\\|")
