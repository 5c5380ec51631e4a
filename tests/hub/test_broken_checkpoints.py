"""A checkpoint of transformers that is not whole, or not supported: one sentence, and nothing is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ritornello as rt
from ritornello import hub
from ritornello.errors import CheckpointError, InputError

CONFIG = rt.ModelConfig(
    vocab_size=31, width=32, depth=2, pattern=("mamba", {"state_size": 4}), ffn=None, norm_eps=1e-5,
    residual_float32=True,
)  # fmt: skip
A_LOG = "backbone.layers.1.mixer.A_log"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mamba")
    rt.save(rt.LanguageModel(CONFIG), folder, format="mamba")
    return folder


@pytest.fixture
def saved(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mamba"))


def settings(**changes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))

    return change


def tensors(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        weights = {n: t.clone() for n, t in load_file(folder / "model.safetensors").items()}
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return changed


def shards(folder: Path, cut: int | None = None, keep: bool = True, index: object = None) -> None:
    """The weights in two files with an index; the second cut short, or gone."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {f"model-{i}.safetensors": names[i::2] for i in (0, 1)}
    for name, part in parts.items():
        save_file({n: weights[n].clone() for n in part}, folder / name)
    (folder / "model.safetensors").unlink()
    last = folder / "model-1.safetensors"
    if cut is not None:
        last.write_bytes(last.read_bytes()[:cut])
    if not keep:
        last.unlink()
    mapped = {"weight_map": {n: name for name, part in parts.items() for n in part}} if index is None else index
    (folder / "model.safetensors.index.json").write_text(json.dumps(mapped))


BROKEN = {
    "an unknown architecture": (settings(model_type="mamba9"), "of kind 'mamba9', which nothing here reads"),
    "an activation": (settings(hidden_act="gelu"), "hidden_act = 'gelu'; only 'silu' is supported"),
    "a setting of a wrong kind": (settings(state_size="many"), "describes no model that can be built"),
    "a missing setting": (settings(hidden_size="gone"), "lacks 'hidden_size'"),
    "no layers": (settings(num_hidden_layers=0), "num_hidden_layers = 0; wanted a positive integer"),
    "another size": (settings(state_size=5), r"A_log is \(64, 4\), not \(64, 5\)"),
    "a missing tensor": (tensors(lambda t: t.pop(A_LOG)), f"{A_LOG} is missing"),
    "a tensor too many": (tensors(lambda t: t.update(more=torch.ones(1))), "more belongs to no layer"),
    "a misshapen tensor": (tensors(lambda t: t.update({A_LOG: torch.ones(3)})), rf"{A_LOG} is \(3,\), not \(64, 4\)"),
    "integers": (tensors(lambda t: t.update({A_LOG: torch.ones(64, 4).int()})), "not a floating dtype"),
    "a truncated file": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-8]),
        "no whole safetensors file",
    ),
    "a truncated shard": (lambda f: shards(f, cut=2000), "model-1.safetensors' is no whole safetensors file"),
    "a missing shard": (lambda f: shards(f, keep=False), "no weights file .*model-1"),
    "an index that is none": (lambda f: shards(f, index=[]), "is no index of weights"),
    "an index that leads out": (
        lambda f: shards(f, index={"weight_map": {"x": "../other.safetensors"}}),
        "is no file beside it",
    ),
    "a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "pytorch_model.bin, which is a pickle and could run any code",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_refused_with_a_sentence(case: str, saved: Path) -> None:
    harm, sentence = BROKEN[case]
    harm(saved)
    for read in (rt.load, hub.inspect):
        with pytest.raises(CheckpointError, match=sentence) as caught:
            read(saved)
        assert "\n" not in str(caught.value)


def test_shards_are_one_model(saved: Path) -> None:
    whole = rt.load(saved)
    shards(saved)
    parts = rt.load(saved / "model.safetensors.index.json")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    rt.save(parts, saved, format="mamba")
    assert not (saved / "model.safetensors.index.json").exists(), "an index of shards that are no longer meant"
    assert torch.equal(rt.load(saved).embedding.weight, whole.embedding.weight)


def test_tied_weights_may_be_there_twice(saved: Path) -> None:
    embeddings = "backbone.embeddings.weight"
    tensors(lambda t: t.update({"lm_head.weight": t[embeddings].clone()}))(saved)
    assert rt.load(saved).head is None
    settings(tie_word_embeddings=False)(saved)
    assert rt.load(saved).head is not None


def test_a_setting_that_is_not_understood_is_told(saved: Path) -> None:
    settings(brand_new_gate=True)(saved)
    with pytest.warns(UserWarning, match="brand_new_gate"):
        rt.load(saved)
    assert hub.inspect(saved).unknown == ["brand_new_gate"]


def test_what_a_config_says_beyond_the_numbers_comes_back(saved: Path, tmp_path: Path) -> None:
    settings(eos_token_id=7, bos_token_id=None, time_step_floor=0.5)(saved)
    rt.save(rt.load(saved), tmp_path / "ours")
    for format, floor in (("mamba", 0.5), ("falcon_mamba", None)):
        model = rt.load(tmp_path / "ours")
        if format == "falcon_mamba":
            model = rt.LanguageModel(
                rt.ModelConfig.from_dict(
                    model.config.to_dict() | {"pattern": [["mamba", {"state_size": 4, "norm_eps": 1e-6}]]}
                )
            )
            model.origin = rt.load(tmp_path / "ours").origin
        rt.save(model, tmp_path / format, format=format)
        config = json.loads((tmp_path / format / "config.json").read_text())
        assert (config["eos_token_id"], config["bos_token_id"], config.get("time_step_floor")) == (7, None, floor)


OTHERS = {
    "another layer": (dict(pattern="gla"), "Block 0 is gla; this format has mamba"),
    "a feed-forward": (dict(ffn="mlp"), "Block 0 is mamba and mlp"),
    "an option": (
        dict(pattern=("mamba", {"negative_eigenvalues": True})),
        "`negative_eigenvalues` of mamba is True, which a checkpoint of format 'mamba' cannot say beside",
    ),
    "options that differ": (
        dict(pattern=["mamba", ("mamba", {"state_size": 3})]),
        "`state_size` of mamba differs from block to block",
    ),
    "a field": (dict(logits_soft_cap=3.0), "`logits_soft_cap` of the model's config is 3.0"),
    "a node": (dict(pattern=rt.Repeat(2, "mamba")), "has a Repeat"),
    "two at once": (dict(pattern=rt.Parallel("mamba", "gla")), r"Block 0 is mamba\+gla"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_model_that_a_format_cannot_say_is_refused(case: str, tmp_path: Path) -> None:
    options, sentence = OTHERS[case]
    config = rt.ModelConfig(**CONFIG.to_dict() | options)
    with pytest.raises(InputError, match=sentence):
        rt.save(rt.LanguageModel(config), tmp_path / "new", format="mamba")
    assert not (tmp_path / "new").exists()
