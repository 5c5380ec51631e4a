"""What a hurried person gives the commands: each ends with one sentence and exit code 2, before any work is done."""

from __future__ import annotations

import io
import os
import sys
import warnings

import pytest
import torch

from ritornello import __version__, cli
from ritornello.train import checkpoint
from tests.cli.test_cli import SMALL, refused, saved, text

__all__ = ["saved", "text"]  # fixtures

HUGE = 10**23


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"ritornello {__version__}, torch {torch.__version__}")


def test_without_a_command_the_help_is_shown(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([])
    assert exit.value.code == 2
    assert "generate" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["trian"], ["train", "--steps", "many"], ["generate"], ["layers", "--widht", "3"]])
def test_a_wrong_option_is_a_sentence_that_names_the_help(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(argv)
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ritornello: ")
    assert line.endswith("--help")


def test_every_help_has_examples_of_its_command(capsys):
    commands = cli.parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert len(commands) == 10
    for name, command in commands.items():
        examples = command.format_help().partition("\nexamples:\n")[2]
        assert examples.startswith(f"  ritornello {name}"), name


def test_places_that_cannot_be_written_to(text, saved, tmp_path, capsys):
    (tmp_path / "file").touch()
    train = ["train", "--data", text, *SMALL, "--steps", "1", "--out"]
    for place in ("file", "file/run"):
        assert "which is a file" in refused(capsys, *train, tmp_path / place)
        assert "which is a file" in refused(capsys, "look", saved, "--text", "abc", "--out", tmp_path / place)
        assert "which is a file" in refused(capsys, "convert", saved, tmp_path / place, "--to", "ritornello")
        assert "which is a file" in refused(capsys, "demo", "--out", tmp_path / place)
    generate = ["generate", saved, "--tokens", "1", "--state-out"]
    assert "which is a folder" in refused(capsys, *generate, tmp_path)
    assert "which is a file" in refused(capsys, *generate, tmp_path / "file" / "state")
    assert capsys.readouterr().out == "", "nothing was done first"


def test_a_run_is_told_of_and_converted(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", "--data", str(text), *SMALL, "--steps", "1", "--out", str(out)]) == 0
    assert cli.main(["info", str(out)]) == 0
    assert "step-00000001" in capsys.readouterr().out
    assert cli.main(["convert", str(out), str(tmp_path / "mine"), "--to", "ritornello"]) == 0
    assert "are both" in refused(capsys, "convert", out, out, "--to", "ritornello")
    assert "are both" in refused(capsys, "convert", out, out / "step-00000001", "--to", "ritornello")


def test_numbers_that_nobody_wants(text, saved, tmp_path, capsys):
    train = ["train", "--data", text, *SMALL, "--steps", "1", "--out", tmp_path / "run"]
    assert "`threads` is 0" in refused(capsys, *train, "--threads", 0)
    assert "`threads` is" in refused(capsys, *train, "--threads", HUGE)
    assert "`seed` is" in refused(capsys, *train, "--seed", HUGE)
    assert "`width` is" in refused(capsys, "layers", "--width", HUGE)
    assert "`--seed` is" in refused(capsys, "generate", saved, "--seed", HUGE)
    assert not (tmp_path / "run").exists()


def test_an_option_of_a_layer_of_another_type(text, tmp_path, capsys):
    told = refused(capsys, "train", "--data", text, "--pattern", "gla:heads=x", "--out", tmp_path / "run")
    assert "`heads` of gla is 'x'; wanted int or None." in told


def test_the_coldest_temperature_takes_the_likeliest(saved, capsys):
    def generate(temperature: str) -> str:
        assert cli.main(["generate", str(saved), "--tokens", "20", "--temperature", temperature]) == 0
        return capsys.readouterr().out

    assert generate("1e-300") == generate("1e-20") == generate("0")


def test_what_does_not_fit_into_memory(text, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(cli.layers, "run", full)
    assert "not enough memory" in refused(capsys, "layers")


def test_other_failures_keep_their_traceback(monkeypatch):
    def broken(_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(cli.layers, "run", broken)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        cli.main(["layers"])


def test_a_run_s_folder_belongs_to_one_process(text, tmp_path, capsys):
    train = ["train", "--data", text, *SMALL, "--steps", "1", "--out", tmp_path / "run"]
    with checkpoint.held(tmp_path / "run"):
        assert "another process trains" in refused(capsys, *train)
    assert cli.main([str(a) for a in train]) == 0


def test_a_name_that_no_checkpoint_could_be_read_from(text, saved, tmp_path, capsys):
    name = tmp_path / os.fsdecode(b"r\xff")
    assert "no UTF-8" in refused(capsys, "train", "--data", text, *SMALL, "--out", name)
    assert "no UTF-8" in refused(capsys, "generate", saved, "--state-out", name)


def test_a_closed_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["layers", "lstm"]) == 0
    assert cli.main(["layers", "nosuch"]) == 2


def test_a_terminal_that_knows_no_utf8(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert cli.main(["layers", "gla"]) == 0
    assert b"S ? " in written.getvalue()


def test_the_system_s_refusal_is_a_sentence(capsys, monkeypatch):
    def full(_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(cli.layers, "run", full)
    told = refused(capsys, "layers")
    assert told == "ritornello: 'somewhere': No space left on device. Make room on the disk."
    told = refused(capsys, "look", "nothing", "--file", "missing")
    assert told == "ritornello: 'missing': No such file or directory. Check the path and its permissions."


def test_a_warning_is_a_sentence(capsys, monkeypatch):
    def warn(_: object) -> None:
        warnings.warn("the kernels are missing", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(cli.layers, "run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(["layers"]) == 0
    assert capsys.readouterr().err == "ritornello: warning: the kernels are missing\n"
