"""The sample of the conformance product leaves nobody out, and is the product when all of it is asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.conformance
@pytest.mark.parametrize("case", range(30))
@pytest.mark.parametrize("layer", ["gla", "lstm"])
def test_product(layer, case): pass

@pytest.mark.parametrize("case", range(5))
def test_other(case): pass
"""


def collected(folder: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return re.findall(r"::(\S+)$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_sample(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    conformance: one point of the product\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    whole, sample = collected(tmp_path, "--conformance=all"), collected(tmp_path)
    assert len(whole) == 65
    assert set(sample) < set(whole)
    for subject, points in (("gla", 3), ("lstm", 3)):  # 30 / 12, rounded up
        assert sum(f"[{subject}-" in name for name in sample) == points
    assert sum("test_other" in name for name in sample) == 5
