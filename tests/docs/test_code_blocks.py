"""Every page that a reader may copy from works: Python blocks run, command lines name options that exist.

The blocks of a page are one program, in the order of the page, run by a fresh interpreter in an empty folder. A block
that cannot run here says why beside its language: ```` ```python no-run: needs two GPUs ````.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,})[ ]*(?P<info>[^`\n]*)$")
SHELLS = ("bash", "console", "sh", "shell")
ALIASES = ("py", "python3", "py3", "pycon", "{.python")
SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A fenced block: the first word of its info string, the rest of it, its text, and the line of its text."""

    language: str
    info: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, without the indentation that a list or a tab gives them."""
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        at += 1
        if opening is None:
            continue
        start, indent = at, opening["indent"]
        while at < len(lines) and lines[at].strip() != opening["ticks"]:
            at += 1
        text = "\n".join(line.removeprefix(indent) for line in lines[start:at])
        language, _, info = opening["info"].strip().partition(" ")
        yield Block(language.replace(" ", "").lower(), info.strip(), text, start + 1)
        at += 1


def program(page: str) -> str:
    """The Python blocks of a page as one program whose line numbers are those of the page."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language in ALIASES:
            raise AssertionError(f"line {block.line}: a block of {block.language!r} is not run; write ```python.")
        if block.language != "python":
            continue
        if block.info.startswith("no-run"):
            reason = block.info.removeprefix("no-run").strip(" :")
            assert len(reason) > 8, f"line {block.line}: say why the block is not run: ```python no-run: REASON"
            continue
        lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines)


def commands(page: str) -> Iterator[tuple[int, list[str]]]:
    """The command lines of the shell blocks that call `ritornello`, with their line numbers."""
    for block in blocks(page):
        if block.language not in SHELLS:
            continue
        text = re.sub(r"\\\n", lambda _: "  ", block.text)
        for offset, line in enumerate(text.splitlines()):
            line = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            for part in line.split(" | "):
                words = shlex.split(part, comments=True)
                if words and words[0] == "ritornello":
                    yield block.line + offset, words[1:]


def run(code: str, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    script = folder / f"page_{Path(name).stem}.py"  # a prefix: a script `random.py` would hide the module of that name
    script.write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )


@cache
def help_text(*command: str) -> str | None:
    """What ``ritornello COMMAND --help`` prints, or None where there is no such command."""
    code = "import sys; from ritornello.cli import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"}
    line = [sys.executable, "-c", code, *command, "--help"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=SECONDS)
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout) if done.returncode == 0 else None


def mistake(words: list[str]) -> str | None:
    """What is wrong with a command line, or None: its subcommand and every option must be in the help."""
    command = [words[0]] if words and not words[0].startswith("-") else []
    text = help_text(*command)
    if text is None:
        return f"there is no `ritornello {' '.join(command)}`"
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text)) | {"--help"}
    for word in words:
        option = word.partition("=")[0]
        if re.fullmatch(r"--?[A-Za-z][\w-]*", option) and option not in known:
            return f"`ritornello {' '.join(command)}` has no option {option}"
    return None


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    code = program(page.read_text(encoding="utf-8"))
    if not code:
        return
    done = run(code, tmp_path, page.name)
    assert done.returncode == 0, f"{label(page)}, by the line numbers of the page:\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_command_lines_exist(page: Path) -> None:
    found = [(line, mistake(words)) for line, words in commands(page.read_text(encoding="utf-8"))]
    wrong = [f"{label(page)}:{line}: {why}" for line, why in found if why]
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------------------------------------- the checks, seen red

PAGE = """# A page
```python
x = 1
```
- in a list
  ```python
  assert x == {expected}, "by line " + str(x)
  ```
```python no-run: needs two GPUs
raise RuntimeError
```
"""


def test_blocks_of_a_page_share_names(tmp_path: Path) -> None:
    assert run(program(PAGE.format(expected=1)), tmp_path, "page.md").returncode == 0


def test_a_failing_block_is_red_and_named_by_its_line(tmp_path: Path) -> None:
    done = run(program(PAGE.format(expected=2)), tmp_path, "page.md")
    assert done.returncode != 0
    assert "line 7" in done.stderr


@pytest.mark.parametrize("opening", ["```python no-run", "```python no-run: x", "```py", "```pycon"])
def test_a_block_that_hides_is_red(opening: str) -> None:
    with pytest.raises(AssertionError, match="line 2"):
        program(f"{opening}\nx = 1\n```\n")


def test_commands_are_found() -> None:
    page = "```console\n$ ritornello layers | head  # all\n.venv/bin/ritornello train \\\n  --data x\nls\n```\n"
    assert list(commands(page)) == [(2, ["layers"]), (3, ["train", "--data", "x"])]


def test_an_unknown_command_or_option_is_red() -> None:
    assert "no `ritornello nonesuch`" in (mistake(["nonesuch"]) or "")
    assert "--nonesuch" in (mistake(["layers", "--nonesuch"]) or "")
    assert mistake(["layers", "--help"]) is None
