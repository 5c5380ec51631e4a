"""The reference: every public name is in it, with a docstring; and docstrings become the Markdown that is meant."""

from __future__ import annotations

import re
from pathlib import Path

import ritornello as rt
from tests.docs.test_code_blocks import program
from tools import docstrings, reference_pages

PAGES = reference_pages.pages()


def test_every_public_name_has_a_docstring_in_the_reference() -> None:
    for name, (_, module, names) in reference_pages.PAGES.items():
        page = PAGES[f"reference/{name}.md"]
        sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
        assert [section.split("\n")[0] for section in sections] == [n for n, _ in reference_pages.public(module, names)]
        assert all(len(re.sub(r"```text.*?```", "", s, flags=re.DOTALL).split()) > 3 for s in sections), name


def test_what_the_package_offers_is_in_the_reference_or_has_pages_of_its_own() -> None:
    listed = {
        n for _, module, names in reference_pages.PAGES.values() for n, _ in reference_pages.public(module, names)
    }
    modules = {"cells", "layers", "models", "ops", "state", "tasks", "transition"}
    assert set(rt.__all__) - listed == modules


def test_no_block_of_the_reference_claims_to_be_run() -> None:
    assert not any(program(page) for page in PAGES.values())


def test_a_docstring_becomes_markdown() -> None:
    found = docstrings.markdown("""y = a * x [1].

    It is as the paper has it: ``x[0]``.

        y = f(x)

    Args:
        q, k: (B, T),
            for each head.

    Source: Someone 2024, arXiv:2412.06464.
    """)
    assert found.split("\n\n") == [
        r"y = a \* x \[1\].", "It is as the paper has it: ``x[0]``.", "```text\ny = f(x)\n```", "**Args**",
        "- `q`, `k`: (B, T), for each head.",
        "**Source.** Someone 2024, [arXiv:2412.06464](https://arxiv.org/abs/2412.06464).",
    ]  # fmt: skip
    assert "Args" not in docstrings.markdown("x\n\nArgs:\n    q: r\n", without=["Args"])


def test_a_signature_is_a_line_or_an_argument_a_line() -> None:
    assert docstrings.signature("rt.state.fork", rt.state.fork) == "rt.state.fork(state: State, n: int = 1) -> State"
    lines = docstrings.signature("rt.ops.delta_rule", rt.ops.delta_rule).splitlines()
    assert lines[:2] == ["rt.ops.delta_rule(", "    q: Tensor,"]
    assert lines[-1] == ") -> tuple[Tensor, Tensor]"


def test_every_page_is_in_the_navigation() -> None:
    root = Path(docstrings.__file__).parents[1]
    navigation = (root / "mkdocs.yml").read_text(encoding="utf-8")
    assert [p.name for p in (root / "docs").glob("*.md") if f" {p.name}" not in navigation] == []
