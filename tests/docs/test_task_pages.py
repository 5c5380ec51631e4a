"""The generated part of the page of tasks: every task is on it, with what its class says."""

from __future__ import annotations

import re
from pathlib import Path

from ritornello import tasks
from tools import task_pages

PAGE = Path(task_pages.__file__).parents[1] / "docs" / "tasks.md"


def test_every_task_has_a_row_and_a_section() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(task_pages.MARKER) == 1
    filled = task_pages.on_page_markdown(text, None, None, None)  # pyright: ignore[reportArgumentType]
    assert task_pages.MARKER not in filled
    names = list(tasks.catalogue())
    assert re.findall(r"^\| \[`(\w+)`\]", filled, re.M) == names
    assert re.findall(r"^### .* \{ #(\w+) \}$", filled, re.M) == names


def test_a_section_says_the_rule_the_sizes_and_what_is_published() -> None:
    text = task_pages.described(tasks.find("parity"))
    assert "y_t = x₁ + … + x_t mod 2" in text and "`train_length` | 40 | 40" in text
    assert "| attention | 0.022 | scaled accuracy |" in text
    assert "Fields:" not in text and "shortest_train" in text


def test_rows_have_as_many_cells_as_their_head() -> None:
    for part in (task_pages.table(), *(task_pages.described(cls) for cls in tasks.catalogue().values())):
        for block in re.split(r"\n\n+", part):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1, block
