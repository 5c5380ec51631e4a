"""A hook of mkdocs: the table of tasks and what each of them is, from the catalogue; in the site, not in git."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from ritornello import tasks
from ritornello.tasks import Task

__all__ = ["MARKER", "described", "on_page_markdown", "table"]

MARKER = "<!-- the tasks -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the table, then a section for every task, where a page has the marker."""
    if MARKER not in markdown:
        return markdown
    sections = [described(cls) for cls in tasks.catalogue().values()]
    return markdown.replace(MARKER, "\n\n".join([table(), *sections]))


def table() -> str:
    """A row for every task."""
    rows = ["| task | tests | metric | chance | trained on | tested to |", "|---|---|---|---|---|---|"]
    for name, cls in tasks.catalogue().items():
        task = cls.preset()
        chance = f"{task.chance:.2g}"
        rows.append(
            f"| [`{name}`](#{name}) | {task.about.tests} | {task.about.metric} | {chance} | {task.train_length} | "
            f"{task.test_lengths[-1]} |"
        )
    return "\n".join(rows)


def described(cls: type[Task]) -> str:
    """A task's section: its rule, its sizes in both presets, and what is published."""
    about = cls.about
    parts = [f"### {about.title} {{ #{cls.name} }}", f"`{cls.name}` · {about.paper}", _prose(cls)]
    if cls.prefixes:
        parts.append("Rows longer than `train_length` are scored on the steps after it.")
    parts.append(_sizes(cls))
    if cls.published:
        rows = ["| published | value | of | size | source |", "|---|---|---|---|---|"]
        rows += [f"| {m} | {f.value:g} | {f.measure} | {f.size} | {f.source} |" for m, f in cls.published.items()]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _prose(cls: type[Task]) -> str:
    """The docstrings of a task and of the abstract task that it completes, without their fields."""
    classes = [c for c in cls.__mro__ if c is not Task and issubclass(c, Task)]
    texts = [re.split(r"\n\s*Fields:", inspect.cleandoc(c.__doc__ or ""))[0].strip() for c in classes]
    return "\n\n".join(text.replace("*", r"\*").replace("[", r"\[") for text in texts)


def _sizes(cls: type[Task]) -> str:
    """The fields of both presets."""
    paper, small = cls.preset(), cls.preset("small")
    rows = ["| field | paper | small |", "|---|---|---|"]
    for field in fields(cls):
        values = [getattr(task, field.name) for task in (paper, small)]
        if field.name == "training":
            values = [
                f"{t.steps} steps of {t.batch} rows, learning rate {' or '.join(f'{r:g}' for r in t.learning_rates)}"
                for t in values
            ]
        rows.append(f"| `{field.name}` | {values[0]} | {values[1]} |")
    return "\n".join(rows)
