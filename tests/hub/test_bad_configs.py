"""A config.json or an index that says what cannot be: one sentence, exit code 2, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ritornello as rt
from ritornello.cli import main
from ritornello.errors import CheckpointError

CONFIG = rt.ModelConfig(
    vocab_size=31, width=32, depth=2, pattern="attention", ffn=("gated_mlp", {"hidden": 48}), tied_embeddings=False
)
STRETCHED = {"rope_type": "llama3", "factor": 2.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    rt.save(rt.LanguageModel(CONFIG), folder, format="llama")
    return folder


@pytest.fixture
def saved(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "llama"))


def changed(**settings: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(config))

    return change


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(content)


def no_file(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def parts(folder: Path, *, again: bool = False) -> dict[str, str]:
    """The weights in two files, perhaps with one tensor in both; which holds which."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2] + names[:1] * again}
    for file, held in files.items():
        save_file({name: weights[name].clone() for name in held}, folder / file)
    return {name: file for file, held in files.items() for name in held}


def twice_in_the_files(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts(folder, again=True)}))


def twice_in_the_index(folder: Path) -> None:
    lines = [f'"{name}": "{file}"' for name, file in parts(folder).items()]
    told = ", ".join([*lines, '"lm_head.weight": "model-1.safetensors"'])
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{told}}}}}')


BROKEN = {
    "not a number": (changed(rms_norm_eps=float("nan")), "rms_norm_eps = NaN"),
    "not a number, inside": (changed(rope_parameters={"rope_theta": float("nan")}), "rope_parameters.rope_theta = NaN"),
    "no bound": (changed(rms_norm_eps=float("inf")), "norm_eps` is inf; wanted a small positive number"),
    "below nothing": (changed(rms_norm_eps=-1e-6), "norm_eps` is -1e-06"),
    "a word for a number": (changed(rms_norm_eps="small"), "norm_eps` is 'small'"),
    "a word for a truth": (changed(tie_word_embeddings="yes"), "tie_word_embeddings = 'yes'; wanted true or false"),
    "a truth for a number": (changed(num_attention_heads=True), "num_attention_heads = True"),
    "a truth for layers": (changed(num_hidden_layers=True), "num_hidden_layers = True"),
    "more than memory has numbers": (changed(hidden_size=10**30), "describes no model that can be built"),
    "no rotation": (changed(rope_parameters={"rope_theta": 0}), "rope_theta = 0; wanted a positive number"),
    "a word for a base": (changed(rope_parameters={"rope_theta": "x"}), "rope_theta = 'x'"),
    "a list of positions": (changed(rope_parameters=[1]), r"rope_parameters = \[1\]; wanted an object"),
    "half a stretch": (changed(rope_parameters=STRETCHED), "it lacks 'low_freq_factor'"),
    "classes that are no list": (changed(model_type=None, architectures=5), "is of kind 5"),
    "a class that is no list": (changed(model_type=None, architectures="LlamaForCausalLM"), "is of kind 'Llama"),
    "no kind": (changed(model_type=None, architectures=None), "tells no model_type"),
    "no end": (text("[" * 100_000), "is no JSON"),
    "a folder": (no_file, "cannot be read"),
    "a tensor in two files": (twice_in_the_files, r"lm_head\.weight is in .*model-1.* and in 'model-2"),
    "a tensor twice in the index": (twice_in_the_index, r"lm_head\.weight is there twice"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_sentence_and_nothing_is_written(case: str, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, sentence = BROKEN[case]
    harm(saved)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        rt.load(saved)
    assert "\n" not in str(caught.value)
    out = saved.parent / "out"
    for command in (["info", str(saved)], ["convert", str(saved), str(out), "--to", "ritornello"]):
        assert main(command) == 2
        assert capsys.readouterr().err == f"ritornello: {caught.value}\n"
    assert not out.exists()


def test_the_one_that_was_not_broken_is_read(saved: Path) -> None:
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts(saved)}))
    assert main(["info", str(saved)]) == 0
