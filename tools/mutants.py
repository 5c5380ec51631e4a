"""The tests, tested: plant each bug of ``tools/mutants.toml`` in a copy of the tree; its tests must go red.

An entry of the table names the contract it is about, the file, the text to replace (found exactly once), its
replacement, and the arguments of pytest that select the tests. Those tests must pass before the bug is planted and fail
after; a bug that survives, a selection that is empty or red by itself, and a text no longer found all fail the run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

__all__ = ["Mutant", "Outcome", "main", "run", "stale", "table"]

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_suffix(".toml")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "site", "runs")
NATIVE = "ritornello/kernels/native/src/"
SECONDS = 600

PASSED, FAILED, NO_TESTS = 0, 1, 5  # what pytest exits with


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    contract: str
    file: str
    old: str
    new: str
    tests: str


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: killed, or why the run fails."""

    mutant: Mutant
    killed: bool
    verdict: str
    output: str = ""


def table(path: Path = TABLE) -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]]


def stale(mutant: Mutant, root: Path = ROOT) -> str | None:
    """Why the entry no longer fits the tree, or None: its text must be there once, and the replacement must differ."""
    file = root / mutant.file
    if not file.is_file():
        return f"there is no {mutant.file}"
    found = file.read_text(encoding="utf-8").count(mutant.old)
    if found != 1:
        return f"its text is found {found} times in {mutant.file}; wanted once"
    return "its replacement changes nothing" if mutant.old == mutant.new else None


def pytest(tests: str, tree: Path) -> tuple[int, str]:
    """Run a selection in a copy of the tree: exit status and output. What takes too long has failed."""
    # no bytecode: a mutant of the same size within the same second would run as its original
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return FAILED, f"more than {SECONDS} s"
    return done.returncode, done.stdout + done.stderr


@contextmanager
def planted(mutant: Mutant, tree: Path) -> Iterator[None]:
    """The bug in the file of the copy, then the file as it was. The native library is built anew for either."""
    file = tree / mutant.file
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        _build(mutant, tree)
        yield
    finally:
        file.write_text(original, encoding="utf-8")
        _build(mutant, tree)


def _build(mutant: Mutant, tree: Path) -> None:
    if mutant.file.startswith(NATIVE):
        command = [sys.executable, "-m", "ritornello.kernels.native.build"]
        subprocess.run(
            command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True, capture_output=True, text=True
        )


def attempt(mutant: Mutant, tree: Path) -> Outcome:
    """Plant one bug, whose tests are green without it, and run them."""
    reason = stale(mutant, tree)
    if reason:
        return Outcome(mutant, False, reason)
    try:
        with planted(mutant, tree):
            status, output = pytest(mutant.tests, tree)
    except subprocess.CalledProcessError as error:
        return Outcome(mutant, False, "it does not compile", error.stderr)
    verdicts = {PASSED: "SURVIVED: its tests are green", FAILED: "killed", NO_TESTS: "its selection is empty"}
    return Outcome(mutant, status == FAILED, verdicts.get(status, f"pytest could not run (exit {status})"), output)


def run(mutants: list[Mutant], root: Path = ROOT, jobs: int = 1) -> Iterator[Outcome]:
    """Every mutant's outcome, in order, from `jobs` copies of the tree at a time."""
    with tempfile.TemporaryDirectory(prefix="ritornello-mutants-") as scratch, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            trees.put(shutil.copytree(root, Path(scratch) / f"tree{job}", ignore=NOT_COPIED))

        def lend(work, *arguments):
            tree = trees.get()
            try:
                return work(*arguments, tree)
            finally:
                trees.put(tree)

        selections = sorted({m.tests for m in mutants})
        before = dict(zip(selections, pool.map(lambda tests: lend(pytest, tests), selections), strict=True))

        def outcome(mutant: Mutant) -> Outcome:
            status, output = before[mutant.tests]
            if status != PASSED:
                reason = "its selection is empty" if status == NO_TESTS else "its tests are red without it"
                return Outcome(mutant, False, reason, output)
            return lend(attempt, mutant)

        yield from pool.map(outcome, mutants)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only the mutants whose name, contract or file contains one of these")
    parser.add_argument("--jobs", type=int, default=1, help="how many copies of the tree are tested at once")
    options = parser.parse_args(arguments)
    mutants = [
        m for m in table() if not options.words or any(w in f"{m.name} {m.contract} {m.file}" for w in options.words)
    ]
    bad = []
    width = max((len(m.contract) for m in mutants), default=0)
    for outcome in run(mutants, jobs=options.jobs):
        sign = "✓" if outcome.killed else "✗"
        print(f"{sign} {outcome.mutant.contract:{width}}  {outcome.mutant.name}: {outcome.verdict}", flush=True)
        if not outcome.killed:
            bad.append(outcome)
    for outcome in bad:
        print(f"\n--- {outcome.mutant.name}: pytest {outcome.mutant.tests}\n{outcome.output[-2000:]}")
    print(f"\n{len(mutants) - len(bad)} of {len(mutants)} planted bugs were found.")
    return 1 if bad or not mutants else 0


if __name__ == "__main__":
    sys.exit(main())
