"""The house rules that a reader of the tree relies on, each shown red once on a tree that breaks it.

Floors, optional packages, files that nobody lists and rooms that are too large are found by reading the source; what an
import really brings along, and how long it takes, by a fresh interpreter.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ritornello"

FLOORS = (
    {"errors", "typing", "_files", "_interrupts"},
    {"state", "sequence", "tasks", "_written"},
    {"kernels"},
    {"ops"},
    {"transition"},
    {"cell"},
    {"implicit"},
    {"method"},
    {"_run"},
    {"cells"},
    {"layers"},
    {"models"},
    {"hub"},
    {"train"},
    {"lab", "serve"},
    {"cli", "testing"},
)
"""The parts of the package. Each imports only itself and what is above it in this list; `__init__` imports any."""

OPTIONAL = {
    "datasets", "fastapi", "huggingface_hub", "lightning", "lightning_fabric", "lm_eval", "matplotlib",
    "minGRU_pytorch", "mlstm_kernels", "optuna", "sklearn", "tensorboard", "tensorboardX", "titans_pytorch",
    "tokenizers", "torchrecurrent", "transformers", "triton", "uvicorn",
}  # fmt: skip
"""Packages that an installation may lack: imported inside the function that needs them."""

ADAPTERS = {"ritornello.hub.huggingface": "transformers", "ritornello.hub.lm_eval": "lm_eval"}
"""Modules whose classes are subclasses of an optional package's: who imports one wants the package, and nothing else
imports it."""

LISTED = ("cells", "layers")
"""Folders of which every file has its line in ``__init__.py``."""

FILE_LINES, FUNCTION_LINES = 400, 50
EXCUSE = "Long because"
IMPORT_SECONDS = 1.5


@dataclass(frozen=True)
class Import:
    """``import module`` or ``from module import name`` on a line; `late` where it stands inside a function."""

    module: str
    name: str | None
    line: int
    late: bool


def sources(root: Path) -> list[Path]:
    return sorted((root / PACKAGE).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST, package: str, late: bool = False) -> Iterator[Import]:
    """The imports of a module of `package`, without those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []), package, late)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, None, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(module, alias.name, node.lineno, late) for alias in node.names)
        else:
            yield from imports(node, package, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    return imports(parse(path), ".".join(path.relative_to(root).parent.parts))


def part_of(path: Path, root: Path) -> str:
    """The part of the package that a file belongs to: ``ritornello/ops/dplr.py`` is in `ops`."""
    return path.relative_to(root / PACKAGE).parts[0].removesuffix(".py")


def floor_of(part: str) -> int | None:
    return next((number for number, parts in enumerate(FLOORS) if part in parts), None)


# -------------------------------------------------------------------------------------------------------- the checks


def wrong_floors(root: Path) -> Iterator[str]:
    """Imports of what is below, of a neighbour on the same floor, or of the package as a whole."""
    for path in sources(root):
        part = part_of(path, root)
        if part in ("__init__", "__main__"):
            continue
        here = floor_of(part)
        if here is None:
            yield f"{path.relative_to(root)}: `{part}` is on no floor; give it one in tests/test_structure.py"
            continue
        for found in imports_of(path, root):
            if found.module != PACKAGE and not found.module.startswith(PACKAGE + "."):
                continue
            where = f"{path.relative_to(root)}:{found.line}"
            other = found.module.split(".")[1] if "." in found.module else found.name
            there = floor_of(other) if other else None
            if there is None:
                if here < len(FLOORS) - 1:  # the last floor uses the package as its users do
                    yield f"{where}: imports {other or 'all'} of `{PACKAGE}`; import from the part that defines it"
            elif other != part and there >= here:
                yield f"{where}: `{part}` is above `{other}` or beside it, and must not import it"


def imports_of_testing(root: Path) -> Iterator[str]:
    """`testing` serves the users' tests and ours; nothing in the package needs it."""
    for path in sources(root):
        for found in imports_of(path, root):
            full = f"{found.module}.{found.name}"
            if part_of(path, root) != "testing" and full.startswith(f"{PACKAGE}.testing"):
                yield f"{path.relative_to(root)}:{found.line}: imports `{PACKAGE}.testing`"


def early_optional(root: Path) -> Iterator[str]:
    """Optional packages imported with the module. A Triton kernel may: the registry imports it on first use."""
    for path in sources(root):
        parts = path.relative_to(root / PACKAGE).parts
        is_kernel = parts[:2] == ("kernels", "triton") and parts[-1] != "__init__.py"
        for found in imports_of(path, root):
            name = found.module.split(".")[0]
            if {found.module, f"{found.module}.{found.name}"} & set(ADAPTERS):
                yield f"{path.relative_to(root)}:{found.line}: imports an adapter, which is for users"
            is_adapter = ADAPTERS.get(".".join((PACKAGE, *parts)).removesuffix(".py")) == name
            if name in OPTIONAL and not found.late and not is_adapter and not (is_kernel and name == "triton"):
                yield f"{path.relative_to(root)}:{found.line}: imports `{name}` early; import it where it is used"


def unlisted(root: Path) -> Iterator[str]:
    """Files of the catalogue's folders that their ``__init__.py`` does not import."""
    for folder in LISTED:
        listing = root / PACKAGE / folder / "__init__.py"
        if not listing.exists():
            continue
        package = f"{PACKAGE}.{folder}"
        found = list(imports_of(listing, root))
        listed = {i.module for i in found} | {f"{i.module}.{i.name}" for i in found}
        for path in sorted(listing.parent.glob("*.py")):
            if not path.stem.startswith("_") and f"{package}.{path.stem}" not in listed:
                yield f"{path.relative_to(root)}: has no line in {folder}/__init__.py"


def large_rooms(root: Path) -> Iterator[str]:
    """Files and functions beyond their size that do not say why. A function's docstring does not count."""
    for path in sources(root):
        tree = parse(path)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES and EXCUSE not in (ast.get_docstring(tree) or ""):
            yield f"{path.relative_to(root)}: {lines} lines; split it, or say `{EXCUSE} ...` in its docstring"
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = ast.get_docstring(node) or ""
            first = node.body[min(1, len(node.body) - 1)] if text else node.body[0]
            size = (node.end_lineno or 0) - first.lineno + 1
            if size > FUNCTION_LINES and EXCUSE not in text:
                name = f"{path.relative_to(root)}:{node.lineno}: {node.name}"
                yield f"{name} has {size} lines; split it, or say `{EXCUSE} ...` in its docstring"


CHECKS = (wrong_floors, imports_of_testing, early_optional, unlisted, large_rooms)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_tree(check) -> None:
    assert sources(ROOT), "there is no package to check"
    wrong = list(check(ROOT))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("adapter", "extra"), [("huggingface", "hub"), ("lm_eval", "eval")])
def test_an_adapter_without_its_package_names_the_extra(adapter: str, extra: str) -> None:
    package = ADAPTERS[f"{PACKAGE}.hub.{adapter}"]
    code = f"import sys; sys.modules[{package!r}] = None; import {PACKAGE}.hub.{adapter}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError:") and last.endswith(f"Run: pip install 'ritornello[{extra}]'")


def test_every_floor_is_named_once() -> None:
    assert len(set().union(*FLOORS)) == sum(len(parts) for parts in FLOORS)


# ------------------------------------------------------------------------------------------------- the checks, seen red

RED = {
    "a lower floor": (wrong_floors, "ops/x.py", "from ritornello.layers import gla"),
    "inside a function": (wrong_floors, "ops/x.py", "def f():\n    import ritornello.layers.gla"),
    "through the package": (wrong_floors, "ops/x.py", "from ritornello import layers"),
    "the package itself": (wrong_floors, "ops/x.py", "import ritornello as rt"),
    "a public name": (wrong_floors, "layers/x.py", "from ritornello import State"),
    "relative": (wrong_floors, "layers/parts/x.py", "from ...models import backbone"),
    "relative, a neighbour": (wrong_floors, "kernels/x.py", "from ..ops import dplr"),
    "the same floor": (wrong_floors, "lab/x.py", "from ritornello.serve import app"),
    "beside TYPE_CHECKING": (wrong_floors, "ops/x.py", "if TYPE_CHECKING: pass\nelse: from ritornello import cli"),
    "on no floor": (wrong_floors, "helpers.py", ""),
    "testing": (imports_of_testing, "cli/x.py", "from ritornello import testing"),
    "testing, deep": (imports_of_testing, "__init__.py", "def f():\n    from ritornello.testing.suite import conform"),
    "triton early": (early_optional, "ops/x.py", "import triton.language as tl"),
    "triton in a declaration": (early_optional, "kernels/triton/__init__.py", "import triton"),
    "transformers in a try": (early_optional, "hub/x.py", "try: import transformers\nexcept ImportError: pass"),
    "an unlisted layer": (unlisted, "layers/x.py", ""),
    "an unlisted cell": (unlisted, "cells/x.py", ""),
    "a large file": (large_rooms, "ops/x.py", "x = 1\n" * 401),
    "a large function": (large_rooms, "ops/x.py", "def f():\n    '''Long.'''\n" + "    x = 1\n" * 51),
}  # fmt: skip

GREEN = {
    "above": ("ops/x.py", "from ritornello.kernels import registry\nfrom . import y\nimport torch, os.path"),
    "its own part": ("layers/x.py", "from ritornello.layers.parts import gate\nfrom .parts import norm"),
    "a type": ("ops/x.py", "if TYPE_CHECKING:\n    from ritornello.layers import Layer\n    import transformers"),
    "the last floor": ("cli/x.py", "import ritornello as rt\nfrom ritornello import State"),
    "optional, where it is used": ("hub/x.py", "def f():\n    import transformers"),
    "a Triton kernel": ("kernels/triton/x.py", "import triton"),
    "a file that says why": ("ops/x.py", "'''Sums. Long because sums are.'''\n" + "x = 1\n" * 401),
    "a long docstring": ("ops/x.py", "def f():\n    '''\n" + "    more\n" * 99 + "    '''\n    return 1"),
    "a private file": ("layers/_x.py", ""),
}  # fmt: skip


def tree(root: Path, path: str, text: str) -> Path:
    """A package of one module, and of layers and cells that list `listed`."""
    for folder in LISTED:
        (root / PACKAGE / folder).mkdir(parents=True)
        (root / PACKAGE / folder / "listed.py").write_text("")
        (root / PACKAGE / folder / "__init__.py").write_text(f"from {PACKAGE}.{folder}.listed import Listed\n")
    (root / PACKAGE / path).parent.mkdir(parents=True, exist_ok=True)
    (root / PACKAGE / path).write_text(text)
    if path.startswith("layers/x") and "import" in text:
        with (root / PACKAGE / "layers/__init__.py").open("a") as listing:
            listing.write("from . import x\n")
    return root


@pytest.mark.parametrize("case", RED)
def test_red(case: str, tmp_path: Path) -> None:
    check, path, text = RED[case]
    assert len(list(check(tree(tmp_path, path, text)))) == 1


@pytest.mark.parametrize("case", GREEN)
def test_green(case: str, tmp_path: Path) -> None:
    root = tree(tmp_path, *GREEN[case])
    assert [wrong for check in CHECKS for wrong in check(root)] == []


# --------------------------------------------------------------------------------------------------- what import does

FRESH = """
import sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
import ritornello
print(time.perf_counter() - start)
print(*sorted(set(sys.modules) - before))
print(ritornello.__path__[0])
print(open("/proc/self/maps").read() if sys.platform == "linux" else "")
"""


def fresh() -> tuple[float, set[str], str, str]:
    """What ``import ritornello`` costs after torch: seconds, modules; then its folder, and the libraries in memory."""
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, modules, folder, libraries = done.stdout.split("\n", 3)
    return float(seconds), set(modules.split()), folder, libraries


def test_import_brings_nothing_optional_along() -> None:
    _, modules, folder, libraries = fresh()
    packages = {name.partition(".")[0] for name in modules}
    assert PACKAGE in packages
    assert not packages & OPTIONAL
    assert "ritornello.tasks" not in modules, "they are imported when they are asked for"
    assert folder not in libraries, "the native library is loaded on its first use"
    assert sys.platform != "linux" or "torch" in libraries, "libraries in memory were not seen"


def test_tasks_are_there_all_the_same() -> None:
    import ritornello

    shown = {name for name in dir(ritornello) if not name.startswith("__")}
    assert shown == set(ritornello.__all__), "what completion offers is what is promised"
    assert ritornello.tasks.find("parity").name == "parity"
    with pytest.raises(AttributeError, match="no attribute 'task'"):
        ritornello.task  # type: ignore[attr-defined]  # noqa: B018


def test_import_is_quick() -> None:
    taken: list[float] = []
    while len(taken) < 6 and min(taken, default=9.0) >= IMPORT_SECONDS:  # other work may have the cores
        taken.append(fresh()[0])
    assert min(taken) < IMPORT_SECONDS, f"`import {PACKAGE}` takes {min(taken):.1f} s beyond `import torch`"
