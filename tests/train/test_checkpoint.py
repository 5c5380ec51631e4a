"""Checkpoints are whole or absent, and a broken one is told from a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ritornello.errors import CheckpointError
from ritornello.train import checkpoint

TRAINING = {"step": 1, "seconds": 2.0, "settings": {}, "record": None, "data": "", "optimizer": {"m": torch.ones(3)}}


def write(folder: Path) -> None:
    (folder / "model").write_bytes(b"weights")


def full(folder: Path) -> None:
    (folder / "model").write_bytes(b"wei")
    raise OSError(28, "No space left on device")


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, write, TRAINING)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000010"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000010"
    found = checkpoint.read_training(tmp_path / "step-00000010")
    assert found["seconds"] == 2.0
    assert torch.equal(found["optimizer"]["m"], torch.ones(3))


def test_a_full_disk_keeps_the_old_one(tmp_path):
    kept = checkpoint.save(tmp_path, 1, write, TRAINING)
    with pytest.raises(CheckpointError, match=r"step 2 .*No space left.*step-00000001' is as it was"):
        checkpoint.save(tmp_path, 2, full, TRAINING)
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "model").read_bytes() == b"weights"


def test_a_full_disk_of_torch(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(CheckpointError, match="no earlier one"):
        checkpoint.save(tmp_path, 2, write, TRAINING)
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_saved(tmp_path):
    def fails(folder: Path) -> None:
        raise CheckpointError("The model was not saved.")

    with pytest.raises(CheckpointError, match=r"was not saved.*Make room"):
        checkpoint.save(tmp_path, 2, fails, TRAINING)
    assert not list(tmp_path.iterdir())


def test_a_kill_leaves_nothing_that_counts(tmp_path):
    (tmp_path / ".step-00000007.part").mkdir()
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.save(tmp_path, 7, write, TRAINING) == checkpoint.latest(tmp_path)


def test_a_truncated_one_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, write, TRAINING)
    broken = checkpoint.save(tmp_path, 2, write, TRAINING) / "training.pt"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"truncated or tampered with.*step-00000001"):
        checkpoint.read_training(broken.parent)


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_code_in_it_is_not_run(tmp_path, capsys):
    folder = checkpoint.save(tmp_path, 1, write, TRAINING)
    torch.save(TRAINING | {"record": Bomb()}, folder / "training.pt")
    with pytest.raises(CheckpointError, match="tampered"):
        checkpoint.read_training(folder)
    assert not capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path):
    folder = checkpoint.save(tmp_path, 1, write, {"step": 1})
    with pytest.raises(CheckpointError, match="optimizer"):
        checkpoint.read_training(folder)


def test_a_model_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run"):
        checkpoint.read_training(tmp_path)
