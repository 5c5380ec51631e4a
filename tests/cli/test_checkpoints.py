"""``ritornello convert`` and ``ritornello info``."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello.cli import main


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    options = {"norm_weights": True, "norm_eps": 1e-6}
    pattern = [("mamba", options), ("mamba", options), ("attention", {"rope_size": 0, "heads": 2})]
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=40, width=32, pattern=pattern, tied_embeddings=False))
    rt.save(model, tmp_path / "ours")
    return tmp_path


def test_there_and_back(folder, capsys) -> None:
    assert main(["convert", str(folder / "ours"), str(folder / "theirs"), "--to", "jamba"]) == 0
    assert "jamba" in capsys.readouterr().out
    assert main(["convert", str(folder / "theirs"), str(folder / "back"), "--to", "ritornello"]) == 0
    ids = torch.arange(10).view(1, -1)
    assert torch.equal(rt.load(folder / "back")(ids)[0], rt.load(folder / "ours")(ids)[0])


def test_info_reads_no_weights(folder, capsys) -> None:
    model = rt.load(folder / "ours")
    rt.save(model, folder / "theirs", format="jamba")
    capsys.readouterr()
    for name, architecture in (("ours", "ritornello"), ("theirs", "jamba")):
        assert main(["info", str(folder / name)]) == 0
        told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line)
        assert told["architecture"] == architecture
        assert told["layers"] == "3: mamba × 2, attention"
        assert told["parameters"] == f"{model.parameter_count:,}"
        assert told["state"].startswith(f"{rt.state.nbytes(model.initial_state(1)):,} bytes")
        assert "linear" in told["state"]
        assert told["not"] == "understood nothing"


def test_mistakes_are_told_before_anything_is_read(folder, capsys) -> None:
    assert main(["convert", str(folder / "ours"), str(folder / "new"), "--to", "jambo"]) == 2
    assert "Did you mean 'jamba'" in capsys.readouterr().err
    assert main(["convert", str(folder / "ours"), str(folder / "ours"), "--to", "jamba"]) == 2
    assert "Give another folder" in capsys.readouterr().err
    assert main(["convert", str(folder / "ours"), str(folder / "new"), "--to", "mamba"]) == 2
    assert not (folder / "new").exists()
    assert main(["info", str(folder / "nothing")]) == 2
