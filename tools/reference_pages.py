"""A hook of mkdocs: the reference, from the public names and their docstrings. In the site, not in git."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from docstrings import markdown, signature
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

__all__ = ["PAGES", "on_config", "on_files", "page", "pages"]

TITLE = "Reference"
METHODS = ("Method", "Auto", "Sequential", "Scan", "Chunked", "Newton", "Fused", "Compiled")
ERRORS = ("RitornelloError", "InputError", "StateError", "BackendError", "CheckpointError", "ConvergenceError")
LAYERS = ("Layer", "Traits", "About", "Leaf", "Call", "build", "find", "catalogue", "register")

PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # file: title, module, names (none: all that the module offers)
    "run": ("Run, save, errors", "ritornello", ("run", "Result", "backend", "explain", "load", "save", *ERRORS)),
    "cells": ("Cells", "ritornello", ("Cell", "AffineCell", "ImplicitCell")),
    "methods": ("Methods", "ritornello", METHODS),
    "ops": ("Ops", "ritornello.ops", ()),
    "transitions": ("Transitions", "ritornello.transition", ()),
    "state": ("State", "ritornello.state", ()),
    "layers": ("The layer itself", "ritornello.layers", LAYERS),
    "models": ("Models", "ritornello.models", ()),
    "training": ("Training", "ritornello.train", ()),
    "tasks": ("Tasks", "ritornello.tasks", ()),
    "checks": ("Checks for your layers", "ritornello.testing", ("check_layer",)),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    for entry in config.nav or []:
        if TITLE in entry:
            entry[TITLE] = list(pages())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Path → Markdown."""
    rows = [
        f"| [{title}]({name}.md) | {', '.join(f'`{n}`' for n, _ in public(module, names))} |"
        for name, (title, module, names) in PAGES.items()
    ]
    index = "# Reference\n\nEvery public name, with `import ritornello as rt`.\n\n| | |\n|---|---|\n" + "\n".join(rows)
    return {"reference/index.md": index} | {f"reference/{name}.md": page(*entry) for name, entry in PAGES.items()}


def public(module: str, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The names of a page that have a docstring of their own, functions and classes."""
    home = importlib.import_module(module)
    for name in names or home.__all__:
        thing = getattr(home, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            yield name, thing


def page(title: str, module: str, names: tuple[str, ...]) -> str:
    at = module.replace("ritornello", "rt", 1)
    if module in ("ritornello.train", "ritornello.testing"):  # these are imported when they are asked for
        at = module
    parts = [f"# {title}"]
    for name, thing in public(module, names):
        parts += [f"## {name}", f"```text\n{signature(f'{at}.{name}', thing)}\n```", markdown(thing.__doc__ or "")]
        if inspect.isclass(thing):
            parts += list(_methods(thing))
    return "\n\n".join(parts)


def _methods(cls: type) -> Iterator[str]:
    """The public methods that a class itself describes."""
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        prop = isinstance(function, property)
        said = getattr(function, "__doc__", None)
        if name.startswith("_") or not said or not (prop or inspect.isfunction(function)):
            continue
        head = f"{cls.__name__}.{name}" if prop else signature(f"{cls.__name__}.{name}", function)
        yield f"### {name} {{ #{cls.__name__}.{name} }}\n\n```text\n{head}\n```\n\n{markdown(said)}"
