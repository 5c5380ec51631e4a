"""The table of planted bugs fits the tree, and the tool that plants them is not fooled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import mutants
from tools.mutants import Mutant

TABLE = mutants.table()


@pytest.mark.parametrize("mutant", TABLE, ids=lambda m: m.name.replace(" ", "_"))
def test_the_text_of_every_mutant_is_there(mutant: Mutant) -> None:
    reason = mutants.stale(mutant)
    assert reason is None, f"tools/mutants.toml, {mutant.name!r}: {reason}"


def test_names_are_unique() -> None:
    assert len({m.name for m in TABLE}) == len(TABLE)


CASES = {
    "killed": (("one = 1", "one = 2", "tests/test_one.py -k right"), "killed"),
    "survives": (("one = 1", "one = 2", "tests/test_one.py -k blind"), "SURVIVED"),
    "red before": (("one = 1", "one = 2", "tests/test_one.py -k red"), "red without it"),
    "no tests": (("one = 1", "one = 2", "tests/test_one.py -k nonesuch"), "empty"),
    "gone": (("two = 1", "two = 2", "tests/test_one.py -k right"), "found 0 times"),
    "ambiguous": (("e", "f", "tests/test_one.py -k right"), "found 2 times"),
    "nothing changes": (("one = 1", "one = 1", "tests/test_one.py -k right"), "changes nothing"),
    "no Python": (("one = 1", "one =", "tests/test_one.py -k right"), "could not run"),
}

TESTS = """
from package import one
def test_right(): assert one == 1
def test_blind(): assert one
def test_red(): assert False
"""


@pytest.mark.slow
def test_every_outcome(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "package.py").write_text("one = 1\ne = 0\n")
    (tmp_path / "tests/test_one.py").write_text(TESTS)
    planted = [Mutant(name, "", "package.py", *change) for name, (change, _) in CASES.items()]
    for outcome in mutants.run(planted, tmp_path, jobs=2):
        expected = CASES[outcome.mutant.name][1]
        assert expected in outcome.verdict, (outcome.mutant.name, outcome.verdict, outcome.output)
        assert outcome.killed is (expected == "killed")
    assert (tmp_path / "package.py").read_text() == "one = 1\ne = 0\n"
