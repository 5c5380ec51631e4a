"""What is packed: the package and what builds it, no less and no more; and that a compiler is not needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".c", ".h", ".css", ".js", ".typed")
BESIDE = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """The sources as they are checked out, with a test in them."""
    pytest.importorskip("setuptools", "77")
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "ritornello", tree / "ritornello", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in sorted(BESIDE - {"PKG-INFO", "setup.cfg"}):  # these two are made
        shutil.copy(ROOT / name, tree / name)
    for folder in ("tests", "tools", "docs"):
        (tree / folder).mkdir()
        (tree / folder / "test_it.py").touch()
    return tree


def build(tree: Path, what: str, **environment: str) -> str:
    code = f"import setuptools.build_meta as b; b.build_{what}('out')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def package(tree: Path) -> set[str]:
    return {str(p.relative_to(tree)) for p in (tree / "ritornello").rglob("*") if p.suffix in SUFFIXES}


def test_the_source_archive_holds_the_package_and_what_builds_it(tree: Path) -> None:
    build(tree, "sdist")
    (archive,) = (tree / "out").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames() if file.getmember(name).isfile()}
    made = {name for name in names if name.startswith("ritornello.egg-info/")}
    assert names - made == package(tree) | BESIDE


def test_a_wheel_is_built_without_a_compiler_and_says_so(tree: Path) -> None:
    told = build(tree, "wheel", CC="no-such-compiler")
    assert "warning: the native CPU kernels were not built: There is no C compiler" in told
    (wheel,) = (tree / "out").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), "without a library it runs anywhere"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == package(tree)
