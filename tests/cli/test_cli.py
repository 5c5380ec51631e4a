"""The command line, in this process: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

import ritornello as rt
from ritornello import hub
from ritornello.cli import main
from ritornello.kernels.tape import Tape
from ritornello.layers import catalogue
from ritornello.models import LanguageModel, ModelConfig
from ritornello.models.pattern import parse_pattern
from ritornello.tasks import text_files
from ritornello.train import Settings, Tokens, Trainer

SMALL = ["--layer", "min_gru", "--width", "16", "--depth", "1", "--batch", "2", "--length", "16", "--seed", "3"]


@pytest.fixture
def text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.txt").write_text(f"this is text number {i}\n" * 30)
    return folder


@pytest.fixture
def saved(tmp_path) -> Path:
    torch.manual_seed(0)
    hub.save(LanguageModel(ModelConfig(vocab_size=256, width=16, pattern="min_gru", depth=1)), tmp_path / "model")
    return tmp_path / "model"


def refused(capsys, *argv: object) -> str:
    """The sentence of a command that ends with exit code 2."""
    assert main([str(a) for a in argv]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    sentence = told.splitlines()[-1]
    assert sentence.startswith("ritornello: ")
    return sentence


def test_train_generate_and_go_on(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", str(text), *SMALL, "--steps", "6", "--out", str(out), "--carry-state"]) == 0
    printed = capsys.readouterr().out
    assert "held-out bits per byte: " in printed
    assert f"{out / 'step-00000006'}" in printed

    def generate(*options: object) -> str:
        assert main(["generate", str(out), "--seed", "1", *map(str, options)]) == 0
        return capsys.readouterr().out

    whole = generate("--prompt", "this", "--tokens", 40, "--temperature", 0)
    state = tmp_path / "state.safetensors"
    first = generate("--prompt", "this", "--tokens", 15, "--temperature", 0, "--state-out", state)
    rest = generate("--tokens", 25, "--temperature", 0, "--state-in", state)
    assert first + rest == whole

    assert main(["train", "--out", str(out), "--resume", "--steps", "8"]) == 0
    assert "after 8 steps" in capsys.readouterr().out
    assert "holds a run" in refused(capsys, "train", "--data", text, "--out", out)
    assert "--lr cannot be changed" in refused(capsys, "train", "--out", out, "--resume", "--lr", 1)
    assert "--width cannot be changed" in refused(capsys, "train", "--out", out, "--resume", "--width", 32)
    (text / "0.txt").write_text("changed")
    assert "have changed" in refused(capsys, "train", "--out", out, "--resume", "--steps", "9")
    (out / "step-00000008" / "training.pt").write_bytes(b"PK")
    assert "truncated or tampered" in refused(capsys, "train", "--out", out, "--resume")


def test_a_run_made_in_python_goes_on_with_its_data(saved, text, tmp_path, capsys):
    out, model = tmp_path / "run", hub.load(saved)
    training, heldout = text_files.split(text_files.read([str(text)]), 0.05)
    data = [Tokens.of(part, model.tokens) for part in (training, heldout)]
    Trainer(model, *data, Settings(steps=2, batch=2, length=16), out, show=False).run()
    assert "does not say what it was trained on" in refused(capsys, "train", "--out", out, "--resume")
    assert main(["train", "--out", str(out), "--resume", "--steps", "3", "--data", str(text)]) == 0
    assert "after 3 steps" in capsys.readouterr().out


def test_a_tokenizer_file(text, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=False))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["this is text number 1\n"] * 5, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    out = tmp_path / "run"
    options = ["--tokenizer", str(tmp_path / "tokenizer.json"), "--steps", "3", "--out", str(out)]
    assert main(["train", "--data", str(text), *SMALL, *options]) == 0
    assert main(["generate", str(out), "--prompt", "this", "--tokens", "5"]) == 0
    model = hub.load(out / "step-00000003")
    assert model.config.vocab_size == made.get_vocab_size() + 1, "the boundary is one more id"
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in refused(capsys, "train", "--data", text, *SMALL, *options[:2], "--out", tmp_path / "2")


def test_mistakes_of_training(text, tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    (tmp_path / "empty").touch()
    (tmp_path / "nothing").mkdir()
    assert "no such file" in refused(capsys, "train", "--data", tmp_path / "missing", *out)
    assert "no text" in refused(capsys, "train", "--data", tmp_path / "empty", *out)
    assert "no text" in refused(capsys, "train", "--data", tmp_path / "nothing", *out)
    assert "`data` is missing" in refused(capsys, "train", *out)
    assert "Did you mean 'min_gru'" in refused(capsys, "train", "--data", text, "--layer", "min_gruu", *out)
    assert "no run to resume" in refused(capsys, "train", "--resume", *out)
    assert "`batch` is 0" in refused(capsys, "train", "--data", text, "--batch", 0, *out)
    assert "tokens to train on" in refused(capsys, "train", "--data", text, "--length", 10**6, *out)
    told = refused(capsys, "train", "--data", text, "--pattern", "attention:heads=3", "--width", 32, *out)
    assert "does not divide" in told
    assert "no option 'windw'" in refused(capsys, "train", "--data", text, "--pattern", "attention:windw=3", *out)
    assert "Give one of them" in refused(capsys, "train", "--data", text, "--pattern", "gla", "--layer", "gla", *out)
    assert not (tmp_path / "out").exists(), "nothing is left behind by a mistake"


def test_a_width_that_the_heads_do_not_divide(text, tmp_path, capsys):
    told = refused(capsys, "train", "--data", text, "--layer", "attention", "--width", 31, "--out", tmp_path / "out")
    assert "31" in told


def test_mistakes_of_the_options_end_with_2(capsys):
    for argv in (["trian"], [], ["train", "--steps", "many"], ["generate"], ["train", "--step", "3"]):
        with pytest.raises(SystemExit) as exit:
            main(argv)
        assert exit.value.code == 2
    capsys.readouterr()


def test_mistakes_of_generating(saved, tmp_path, capsys):
    assert "no folder" in refused(capsys, "generate", tmp_path / "missing")
    assert "temperature" in refused(capsys, "generate", saved, "--temperature", -1)
    assert "no file" in refused(capsys, "generate", saved, "--state-in", tmp_path / "missing")
    other = rt.layers.build("lstm", 16).initial_state(1)
    rt.state.save(other, tmp_path / "other", {"unread": [[0]]})
    assert "kind" in refused(capsys, "generate", saved, "--state-in", tmp_path / "other")
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "no whole safetensors" in refused(capsys, "generate", saved)


def test_a_state_of_a_larger_batch_is_refused(saved, tmp_path, capsys):
    model = hub.load(saved)
    rt.state.save(model.initial_state(3), tmp_path / "three", {"unread": [[0]]})
    assert "3" in refused(capsys, "generate", saved, "--state-in", tmp_path / "three", "--tokens", 1)


def test_a_prompt_that_is_no_utf8(saved, tmp_path, capsys, monkeypatch):
    read = []
    monkeypatch.setattr(LanguageModel, "stream_text", lambda self, ids, *_, **__: read.append(ids) or iter(()))
    assert main(["generate", str(saved), "--prompt", os.fsdecode(b"a\xff\xfeb")]) == 0
    assert read[0].tolist() == [[0, 97, 255, 254, 98]]


def test_the_seed_makes_the_text(saved, capsys):
    def generate(*options: str) -> str:
        assert main(["generate", str(saved), "--tokens", "30", *options]) == 0
        return capsys.readouterr().out

    assert generate("--seed", "1") == generate("--seed", "1")
    assert generate("--seed", "1") != generate("--seed", "2")
    assert generate("--seed", "1", "--top-k", "1") == generate("--seed", "2", "--top-k", "1", "--top-p", "0.9")


def test_ctrl_c_in_the_middle_of_a_step_keeps_the_state(saved, tmp_path, capsys, monkeypatch):
    played = []
    play = Tape.play

    def interrupted(tape):
        played.append(len(tape))
        if len(played) == 3:
            signal.raise_signal(signal.SIGINT)
        play(tape)

    monkeypatch.setattr(Tape, "play", interrupted)
    state = tmp_path / "state.safetensors"
    assert main(["generate", str(saved), "--tokens", "1000", "--state-out", str(state)]) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert len(played) < 20
    assert main(["generate", str(saved), "--tokens", "5", "--state-in", str(state)]) == 0


def test_layers(capsys, monkeypatch):
    assert main(["layers", "--width", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(catalogue())
    assert [line.split("\t")[0] for line in lines[1:]] == list(catalogue())
    row = next(line.split("\t") for line in lines if line.startswith("min_gru\t"))
    assert row[3] == "32"
    assert "arXiv" in row[2]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["layers"]) == 0
    assert "min_gru" in capsys.readouterr().out
    assert main(["layers", "min_gru"]) == 0
    assert "h_t = (1 − z_t)" in capsys.readouterr().out
    assert main(["layers", "ugrnn", "--explain", "--width", "16", "--length", "300"]) == 0
    assert "UGRNNCell: Sequential() chosen; expected Sequential" in capsys.readouterr().out
    assert "Name one" in refused(capsys, "layers", "--explain")
    assert "wanted at most 16,384 steps" in refused(capsys, "layers", "attention", "--explain", "--length", "100000")
    assert "Did you mean 'min_gru'" in refused(capsys, "layers", "min_gr")
    assert "width" in refused(capsys, "layers", "--width", "0")


def test_patterns():
    assert parse_pattern("gla, gla,attention:window=128:bias=true") == [
        "gla", "gla", ("attention", {"window": 128, "bias": True}),
    ]  # fmt: skip
    with pytest.raises(rt.InputError, match="window=VALUE"):
        parse_pattern("attention:window")
