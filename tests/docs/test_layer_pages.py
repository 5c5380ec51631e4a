"""The generated page of every layer: it says what its class says, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ritornello import layers
from tests.docs.test_code_blocks import program, run
from tools import docstrings, layer_pages

PAGES = layer_pages.pages()
NAMES = [name for role in layer_pages.ROLES for name in layers.catalogue(role)]


def test_every_layer_has_a_page_and_a_row() -> None:
    assert NAMES
    assert set(PAGES) == {"layers/index.md", *(f"layers/{name}.md" for name in NAMES)}
    assert set(re.findall(r"\]\((\w+)\.md\)", PAGES["layers/index.md"])) == set(NAMES)


def test_the_page_that_helps_to_choose_has_the_table() -> None:
    page = Path(layer_pages.__file__).parents[1] / "docs" / "choose-a-layer.md"
    assert layer_pages.MARKER in page.read_text(encoding="utf-8")
    rows = layer_pages.table("mixer", "layers/").splitlines()[2:]
    assert [re.findall(r"\]\(layers/(\w+)\.md\)", row)[0] for row in rows] == list(layers.catalogue())


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_equation_and_source(name: str) -> None:
    about = layers.find(name).traits.about
    page = PAGES[f"layers/{name}.md"]
    assert about.equation
    assert about.equation in page
    assert re.search(r"\b(19|20)\d\d\b", about.paper), "a paper has a year"
    undescribed = re.findall(r"^\| `(\w+)` \| [^|]* \|\s*\|$", page, re.MULTILINE)
    assert not undescribed, f"`Args:` of {name} does not say what these are: {undescribed}"


def test_the_code_of_all_pages_runs(tmp_path: Path) -> None:
    done = run("\n".join(program(page) for page in PAGES.values()), tmp_path, "layers.md")
    assert done.returncode == 0, done.stderr[-4000:]


def test_descriptions_are_read_from_the_docstring() -> None:
    docstring = "y = x\n\nArgs:\n    q, k: (B, T).\n    bias: whether\n        there is one: yes.\n\nSource: none.\n"
    assert docstrings.described(docstring) == {"q": "(B, T).", "k": "(B, T).", "bias": "whether there is one: yes."}
