"""The folder of a comparison: its plan, what it has found, and its report."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ritornello import _files
from ritornello.errors import CheckpointError, InputError
from ritornello.lab.bench.report import machine
from ritornello.lab.compare.plan import Plan
from ritornello.lab.compare.store import Store

__all__ = ["Folder", "write_text"]

PLAN, RESULTS = "comparison.json", "results.jsonl"
SCHEMA = 1


@dataclass(frozen=True)
class Folder:
    """A comparison on the disk."""

    path: Path
    plan: Plan
    made: dict[str, Any]

    @staticmethod
    def open(path: Path, plan: Plan, command: str) -> Folder:
        """The folder for a plan: a new one, or the one in which this very comparison was begun. One in which nothing is
        finished, as after a budget that was too small, is begun anew with any plan.

        Raises:
            InputError: it holds another comparison, or something else.
        """
        if (path / PLAN).exists():
            found = Folder.read(path)
            difference = plan.difference(found.plan)
            if difference is None:
                return found
            if any(record["kind"] in ("sweep", "run") for record in found.store.read()):
                raise InputError(
                    f"{str(path)!r} holds another comparison: {difference}. Give another --out, or the same options to "
                    "go on with it."
                )
            with found.alone():
                found.store.path.unlink(missing_ok=True)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{str(path)!r} is there and holds no comparison. Give another --out.")
        made = {"command": command, "versions": _versions(), "machine": machine()}
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "plan": plan.to_dict(), **made}, indent=1) + "\n"
        write_text(path / PLAN, text)
        return Folder(path, plan, made)

    @staticmethod
    def read(path: Path) -> Folder:
        """A comparison that was begun.

        Raises:
            CheckpointError: there is none, or its plan cannot be read.
        """
        try:
            values = json.loads((path / PLAN).read_text(encoding="utf-8"))
            made = {name: values[name] for name in ("command", "versions", "machine")}
            return Folder(path, Plan.from_dict(values["plan"]), made)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{str(path / PLAN)!r} is no plan of a comparison ({error!r}).") from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While one process works in the folder, no other does: two would measure each other.

        Raises:
            InputError: another one is at work.
        """
        try:
            import fcntl
        except ImportError:  # Windows has other locks; there nothing is asked
            yield
            return
        with open(self.path / PLAN, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it goes with the process, however that ends
            except BlockingIOError:
                raise InputError(
                    f"Another process is at work in {str(self.path)!r}. Wait until it is done, or give another --out."
                ) from None
            yield

    @property
    def store(self) -> Store:
        return Store(self.path / RESULTS)


def write_text(path: Path, text: str) -> None:
    """Put a text into a file that is whole or absent."""

    def write(name: str) -> None:
        Path(name).write_text(text, encoding="utf-8")

    _files.replace(path, write)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("ritornello")
    except PackageNotFoundError:
        ours = "not installed"
    return {"ritornello": ours, "torch": torch.__version__, "python": platform.python_version()}
