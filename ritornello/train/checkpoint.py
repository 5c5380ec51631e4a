"""Checkpoints of a run: a folder per step, whole or absent, with the model, the optimiser and the carried state.

out/step-00000400/{config.json, model.safetensors}   the model, for rt.load
                  training.pt                         step, clock, optimiser, record: read with weights_only=True
                  carried.safetensors                 the state of all rows, where it is carried
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ritornello import _files
from ritornello.errors import CheckpointError, InputError

__all__ = ["KEPT", "held", "latest", "model_folder", "read_training", "save"]

KEPT = 2
"""How many checkpoints of a run are kept: the last, and one before it should the disk have failed it."""

FULL = (OSError, RuntimeError, SafetensorError, CheckpointError)
"""What a full disk becomes in Python, in torch.save, in safetensors and in hub.save."""

PREFIX = "step-"
TRAINING = "training.pt"


def _steps(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(p for p in out.glob(f"{PREFIX}*") if p.is_dir() and p.name.removeprefix(PREFIX).isdigit())


def latest(out: str | Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return next(reversed(_steps(Path(out))), None)


def model_folder(path: str | Path) -> Path:
    """Where a model lies: in the newest checkpoint of a run, or in `path` itself."""
    return latest(path) or Path(path)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The folder of a run belongs to one process: two would write over each other's checkpoints.

    Raises:
        InputError: another process trains there.
    """
    out.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"`out` is {str(out)!r}, where another process trains. Give another folder.") from None
        except OSError:  # a file system that knows no locks
            pass
        yield
    finally:
        os.close(handle)


def save(out: Path, step: int, write: Callable[[Path], None], training: dict[str, Any]) -> Path:
    """Make the checkpoint of `step`: `write` puts the model into a folder, `training` goes beside it.

    The folder gets its name when all of it is on the disk; then the oldest are removed. Whatever fails before — a full
    disk, a kill — leaves the earlier checkpoints as they were.

    Raises:
        CheckpointError: the folder could not be written.
    """
    final, part = out / f"{PREFIX}{step:08d}", out / f".{PREFIX}{step:08d}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        _files.replace(part / TRAINING, lambda name: torch.save(training, name))
        _sync_folder(part)
        if final.exists():  # a step saved twice has the same contents: a run is a function of its settings
            shutil.rmtree(final)
        os.rename(part, final)
        _sync_folder(out)
    except FULL as error:
        raise _failed(out, step, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in _steps(out)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _failed(out: Path, step: int, error: BaseException) -> CheckpointError:
    kept = latest(out)
    stays = f"The checkpoint {str(kept)!r} is as it was." if kept else "There is no earlier one."
    return CheckpointError(
        f"The checkpoint of step {step} could not be written to {str(out)!r} ({error}). {stays} "
        "Make room there and go on with --resume."
    )


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_training(folder: Path) -> dict[str, Any]:
    """What `save` was given as `training`.

    Raises:
        CheckpointError: it is not there, truncated or tampered with.
    """
    path = folder / TRAINING
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if missing := {"step", "seconds", "settings", "record", "data", "optimizer"} - set(found):
            raise CheckpointError(f"without {', '.join(sorted(missing))}")
    except FileNotFoundError:
        raise CheckpointError(f"There is no {str(path)!r}: {str(folder)!r} is a model, not a run to resume.") from None
    except Exception as error:  # whatever an unpickler meets in a broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        others = [p.name for p in _steps(folder.parent) if p != folder]
        advice = f"Remove {str(folder)!r} to go on from {others[-1]}." if others else "Start again without --resume."
        raise CheckpointError(f"{str(path)!r} is truncated or tampered with ({reason}). {advice}") from None
    return found
