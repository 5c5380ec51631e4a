"""The command line as a process of its own: kills, Ctrl-C, full disks, pipes, and two processes that train together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ritornello import hub
from ritornello.models import LanguageModel, ModelConfig
from ritornello.train.log import read_curve

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")]

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--layer", "min_gru", "--width", "16", "--depth", "1", "--length", "16", "--carry-state"]
PATIENCE = 300.0
"""Seconds until a process is given up: other work may have the cores."""


@pytest.fixture
def text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.txt").write_text(f"this is text number {i}\n" * 100)
    return folder


def start(*argv: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "ritornello", *map(str, argv)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_that_is_resumed_ends_with_the_same_weights(text, tmp_path):
    run = ["train", "--data", text, *SMALL, "--batch", 2, "--steps", 400, "--eval-every", 20]
    whole = start(*run, "--out", tmp_path / "whole")
    killed = start(*run, "--out", tmp_path / "killed")
    wait_for(tmp_path / "killed" / "step-00000020", killed)
    killed.kill()
    assert finish(killed)[0] == -signal.SIGKILL
    assert finish(whole)[0] == 0
    assert not (tmp_path / "killed" / "step-00000400").exists(), "it was killed too late to tell anything"
    code, out, err = finish(start("train", "--out", tmp_path / "killed", "--resume"))
    assert code == 0, err
    assert "after 400 steps" in out
    assert same(tmp_path / "whole" / "step-00000400", tmp_path / "killed" / "step-00000400")


def test_ctrl_c_saves_and_says_how_to_go_on(text, tmp_path):
    out = tmp_path / "run"
    run = start("train", "--data", text, *SMALL, "--steps", 10**6, "--eval-every", 10**6, "--out", out)
    wait_for(out / "curve.csv", run)
    while len(read_curve(out / "curve.csv")) < 2:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    code, _, err = finish(run)
    assert code == 130, err
    assert f"ritornello train --out {out} --resume" in err
    assert "Traceback" not in err
    saved = int(next(out.glob("step-*")).name.removeprefix("step-"))
    code, printed, err = finish(start("train", "--out", out, "--resume", "--steps", saved + 1))
    assert code == 0, err
    assert f"after {saved + 1} steps" in printed


def test_ctrl_c_while_it_is_importing_is_no_traceback():
    """PyTorch, loaded, is in the process's memory map well before the import is over."""
    for _ in range(5):
        process = start("layers")
        maps = Path(f"/proc/{process.pid}/maps")
        if not maps.exists():
            process.kill()
            pytest.skip("needs /proc")
        while process.poll() is None and "libtorch" not in maps.read_text():
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
        assert (code, err) == (130, "ritornello: Interrupted.\n")


def small_files(size: int):
    """Limits a process to files of `size` bytes: what a full disk is like, for it alone."""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_keeps_the_old_checkpoint(text, tmp_path):
    out = tmp_path / "run"
    assert finish(start("train", "--data", text, *SMALL, "--steps", 5, "--out", out))[0] == 0
    before = weights(out / "step-00000005")
    again = start("train", "--out", out, "--resume", "--steps", 10, "--eval-every", 10, preexec_fn=small_files(9_000))
    code, _, err = finish(again)
    assert code == 2, err
    assert "Traceback" not in err
    assert "step-00000005' is as it was" in err
    assert "--resume" in err
    after = weights(out / "step-00000005")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [p for p in out.iterdir() if p.name.startswith(".") or p.name == "step-00000010"]
    assert finish(start("train", "--out", out, "--resume", "--steps", 10))[0] == 0


def test_a_closed_pipe_is_quiet(tmp_path):
    hub.save(LanguageModel(ModelConfig(vocab_size=256, width=16, pattern="min_gru", depth=1)), tmp_path / "model")
    writer = start("generate", tmp_path / "model", "--tokens", 10**6, "--state-out", tmp_path / "state")
    assert writer.stdout is not None
    assert writer.stdout.read(10), "it prints as it goes"
    writer.stdout.close()
    assert writer.wait(PATIENCE) == 0
    assert writer.stderr is not None
    assert writer.stderr.read() == ""
    assert (tmp_path / "state").exists()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_together(text, tmp_path, strategy):
    run = ["train", "--data", text, *SMALL, "--steps", 8, "--eval-every", 4]
    two = start(*run, "--batch", 2, "--devices", 2, "--strategy", strategy, "--out", tmp_path / "two")
    code, out, err = finish(two)
    assert code == 0, err[-3000:]
    assert out.count("held-out bits per byte") == 1, "one process speaks"
    assert finish(start(*run, "--batch", 4, "--out", tmp_path / "one"))[0] == 0
    one, other = (weights(tmp_path / name / "step-00000008") for name in ("one", "two"))
    for name in one:  # the same rows, summed in another order
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)
    assert finish(start("train", "--out", tmp_path / "two", "--resume", "--steps", 10))[0] == 0


EXPERTS = """
import sys
from ritornello.models import ByteTokenizer, LanguageModel, ModelConfig
from ritornello.tasks.text_files import Document
from ritornello.train import Settings, Tokens, Trainer

text = Tokens.of([Document(str(i), b"hello world " * 50) for i in range(8)], ByteTokenizer())
experts = ("moe", {"experts": 32, "top_k": 1, "hidden": 8})
model = LanguageModel(ModelConfig(vocab_size=256, width=16, pattern="min_gru", depth=1, ffn=experts))
settings = Settings(steps=3, batch=1, length=8, devices=2, strategy=sys.argv[2])
print(Trainer(model, text, text, settings, sys.argv[1], show=False).run().step)
"""


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_experts_that_no_step_goes_to_stop_no_process(tmp_path, strategy):
    """Eight steps leave most of 32 experts without a gradient, others in each process."""
    program = tmp_path / "experts.py"
    program.write_text(EXPERTS)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), str(tmp_path / "run"), strategy]
    code, out, err = finish(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    )
    assert code == 0, err[-3000:]
    assert out.split() == ["3", "3"]
