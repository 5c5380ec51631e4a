"""Folders of comparisons that went wrong: a budget that was too small, a disk that is full."""

from __future__ import annotations

import errno
import os

import pytest

from ritornello import _files, tasks
from ritornello.cli import main
from ritornello.errors import CheckpointError, InputError
from ritornello.lab.compare import Folder, Plan, work
from ritornello.lab.compare.store import Store
from tests.lab.comparisons import Echo


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    monkeypatch.setitem(tasks.catalogue.__globals__["_tasks"], "echo", Echo)


def plan(budget: str) -> Plan:
    return Plan.of(["min_gru"], ["echo"], budget, seeds=1, workers=1)


def test_where_nothing_was_finished_another_budget_may_be_tried(tmp_path):
    folder = Folder.open(tmp_path / "a", plan("1s"), "first")
    folder.store.append({"kind": "speed", "layer": "min_gru"})
    folder.store.append({"kind": "failure", "stage": "sweep", "layer": "min_gru", "task": "echo", "why": "too small"})
    again = Folder.open(tmp_path / "a", plan("9s"), "second")
    assert (again.plan.budget, again.made["command"]) == ("9s", "second")
    assert again.store.read() == [], "a speed may be of another width"
    assert Folder.read(tmp_path / "a").plan == plan("9s")


def test_while_another_works_there_nothing_is_begun_anew(tmp_path):
    folder = Folder.open(tmp_path / "a", plan("1s"), "first")
    with folder.alone(), pytest.raises(InputError, match="Another process is at work"):
        Folder.open(tmp_path / "a", plan("9s"), "second")
    assert Folder.read(tmp_path / "a").plan == plan("1s")


@pytest.mark.parametrize("kind", ["sweep", "run"])
def test_what_is_finished_is_not_lost_to_another_plan(tmp_path, kind):
    folder = Folder.open(tmp_path / "a", plan("1s"), "first")
    folder.store.append({"kind": kind, "layer": "min_gru", "task": "echo"})
    with pytest.raises(InputError, match="holds another comparison: budget 1s, not 9s"):
        Folder.open(tmp_path / "a", plan("9s"), "second")
    assert len(folder.store.read()) == 1


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    store = Store(tmp_path / "results.jsonl")
    store.append({"n": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:3]))
    with pytest.raises(OSError, match=r"No space left.*results\.jsonl'") as caught:
        store.append({"n": 2})
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    store.append({"n": 3})
    assert store.read() == [{"n": 1}, {"n": 3}], "what was begun is cut off"


@pytest.mark.parametrize("line", [b"hello", b"[1]", b'{"n": 1,}', b"\xff"])
def test_a_line_that_is_no_record_is_told(tmp_path, line):
    store = Store(tmp_path / "notes.txt")
    store.append({"n": 1})
    store.path.write_bytes(store.path.read_bytes() + line + b"\n")
    with pytest.raises(CheckpointError, match=r"notes\.txt', line 2, is no record"):
        store.read()


def test_a_file_for_claims_is_tried_before_the_first_run(tmp_path, capsys):
    assert main(["reproduce", "lower_bounds", "--out", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err
    Store(tmp_path / "new" / "claims.jsonl").prepare()
    assert Store(tmp_path / "new" / "claims.jsonl").read() == []


def test_scoring_stops_where_a_seed_has_no_time_left(tmp_path, monkeypatch):
    """A layer whose scores take minutes is refused after the first length that took too long."""
    asked, clock = [], [0.0]

    def evaluate(model, task, lengths):
        asked.extend(lengths)
        clock[0] += 100.0
        return dict.fromkeys(lengths, 0.5)

    monkeypatch.setattr(work, "evaluate", evaluate)
    monkeypatch.setattr(work.time, "perf_counter", lambda: clock[0])
    with pytest.raises(
        InputError, match=r"a seed gets 15 s, too little for its scores \(up to length 6 they took 100 s\)"
    ):
        work.perform({"kind": "sweep", "plan": plan("20s").to_dict(), "layer": "min_gru", "task": "echo"}, print)
    assert asked == [6]


@pytest.mark.parametrize("named", [None, "x.part"])
def test_a_file_that_could_not_be_replaced_is_named(tmp_path, named):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(name: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *([named] if named else []))

    with pytest.raises(OSError, match=r"No space left on device: '.*/report\.html'"):
        _files.replace(path, full)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_another_file_keeps_its_name(tmp_path):
    def absent(name: str) -> None:
        open(tmp_path / "absent.txt", "rb").close()

    with pytest.raises(OSError, match=r"absent\.txt"):
        _files.replace(tmp_path / "report.html", absent)
