"""Checkpoints: what is saved comes back, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ritornello as rt
from ritornello import hub
from ritornello.errors import CheckpointError, InputError
from ritornello.hub import base
from ritornello.models import FileTokenizer

PATTERN = ["gated_delta_net", rt.Parallel("min_gru", ("attention", {"window": 5})), rt.Repeat(2, "lstm")]


def model_of(**options) -> rt.LanguageModel:
    torch.manual_seed(0)
    return rt.LanguageModel(rt.ModelConfig(**{"vocab_size": 256, "width": 16, "pattern": PATTERN} | options))


def ids_of() -> torch.Tensor:
    return torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path) -> Path:
    rt.save(model_of(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_comes_back_bit_for_bit(tmp_path, tied: bool, dtype) -> None:
    model = model_of(tied_embeddings=tied, logits_soft_cap=5.0).to_dtype(dtype)
    rt.save(model, str(tmp_path / "new" / "folder"))
    loaded = rt.load(str(tmp_path / "new" / "folder"))
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded(ids_of())[0], model(ids_of())[0])
    dtypes = {n: p.dtype for n, p in model.named_parameters()}
    assert {n: p.dtype for n, p in loaded.named_parameters()} == dtypes
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())
    loaded.loss(ids_of()).backward()
    tensors = load_file(tmp_path / "new" / "folder" / "model.safetensors")
    assert ("head.weight" in tensors) != tied
    assert sum(t.numel() for t in tensors.values()) == model.parameter_count


def test_the_files_are_readable(saved) -> None:
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    assert (config["format"], config["version"], config["tokens"]) == ("ritornello", 1, "bytes")
    assert config["model"]["pattern"][2] == {"repeat": 2, "blocks": ["lstm"]}


def test_a_file_of_the_folder_names_it_too(saved) -> None:
    assert rt.load(saved / "config.json").config == rt.load(saved).config


def test_a_dtype_can_be_asked_for(saved) -> None:
    model = rt.load(saved, dtype=torch.bfloat16)
    assert model.embedding.weight.dtype == torch.bfloat16
    assert model.backbone.blocks[0].mixer.decay.A_log.dtype == torch.float32


def test_a_loaded_model_takes_no_random_numbers_and_may_be_saved_over(saved) -> None:
    before = torch.random.get_rng_state()
    model = rt.load(saved)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        model.embedding.weight.mul_(2)
    expected = model(ids_of())[0]
    rt.save(model, saved)
    assert torch.equal(rt.load(saved)(ids_of())[0], expected)


def test_constants_that_are_not_saved_are_computed(saved) -> None:
    class WithConstant(rt.LanguageModel):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("constant", torch.arange(3), persistent=False)

    config = rt.load(saved).config
    tensors = load_file(saved / "model.safetensors")
    model = base.assign(lambda: WithConstant(config), tensors, saved)
    assert model.constant.tolist() == [0, 1, 2]
    assert torch.equal(model(ids_of())[0], model_of()(ids_of())[0])


def test_a_tokenizer_travels_along(tmp_path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "made.json"))
    config = rt.ModelConfig(vocab_size=3, width=16, pattern="min_gru")
    model = rt.LanguageModel(config, FileTokenizer(tmp_path / "made.json"))
    rt.save(model, tmp_path / "model")
    loaded = rt.load(tmp_path / "model")
    assert loaded.tokens.encode("b a x") == [1, 0, 2]
    texts = [list(m.stream_text("b a", temperature=0, max_new_tokens=4)) for m in (model, loaded)]
    assert texts[0] == texts[1] != []
    rt.save(rt.LanguageModel(config), tmp_path / "bare")
    assert rt.load(tmp_path / "bare").tokens is None


# ------------------------------------------------------------------------------------------------------- broken files


def edit(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def tensors(folder: Path, change) -> None:
    weights = {n: t.clone() for n, t in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors")


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


NORM = "backbone.final_norm.weight"
BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights file"),
    "weights cut short": (lambda f: cut(f / "model.safetensors", 9000), "no whole safetensors file"),
    "weights cut to nothing": (lambda f: cut(f / "model.safetensors", 0), "no whole safetensors file"),
    "a config cut short": (lambda f: cut(f / "config.json", 40), "is no JSON"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object but a list"),
    "another format": (lambda f: edit(f, lambda c: c.update(format="none", model_type="nonesuch")), "kind 'nonesuch'"),
    "a newer version": (lambda f: edit(f, lambda c: c.update(version=2)), "Install a newer one"),
    "no version": (lambda f: edit(f, lambda c: c.pop("version")), "of version None"),
    "no model": (lambda f: edit(f, lambda c: c.pop("model")), "no field 'model'"),
    "other tokens": (lambda f: edit(f, lambda c: c.update(tokens="words")), "the tokens 'words'"),
    "a lost tokenizer": (lambda f: edit(f, lambda c: c.update(tokens="tokenizer.json")), "no tokenizer file"),
    "an unknown layer": (
        lambda f: edit(f, lambda c: c["model"].update(pattern=["lstn"])),
        "no model that can be built: There is no layer 'lstn'. Did you mean 'lstm'",
    ),
    "an unknown field": (lambda f: edit(f, lambda c: c["model"].update(wdth=3)), "no field 'wdth'"),
    "a text for a number": (lambda f: edit(f, lambda c: c["model"].update(dropout="x")), "can be built"),
    "a missing tensor": (lambda f: tensors(f, lambda t: t.pop(NORM)), f"{NORM} is missing"),
    "a tensor too many": (lambda f: tensors(f, lambda t: t.update(x=torch.ones(1))), "x belongs to no layer"),
    "a misshapen tensor": (
        lambda f: tensors(f, lambda t: t.update({NORM: torch.ones(9)})),
        r"final_norm.weight is \(9,\), not \(16,\)",
    ),
    "integers": (lambda f: tensors(f, lambda t: t.update({NORM: torch.ones(16).int()})), "not a floating dtype"),
    "another width": (lambda f: edit(f, lambda c: c["model"].update(width=32)), "and [0-9]+ more"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_refused_with_a_sentence(case: str, saved) -> None:
    harm, sentence = BROKEN[case]
    harm(saved)
    for read in (rt.load, hub.inspect):
        with pytest.raises(CheckpointError, match=sentence):
            read(saved)


def test_pickles_are_never_read(tmp_path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="could run any code"):
        rt.load(tmp_path)
    with pytest.raises(CheckpointError, match="Pickles"):
        rt.load(tmp_path / "pytorch_model.bin")


def test_what_is_not_there(tmp_path, monkeypatch) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        rt.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="There is no folder 'nothing'"):
        rt.load("nothing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"'ritornello\[hub\]'"):
        rt.load("owner/name")


# --------------------------------------------------------------------------------------------------- while it is saved

FULL = """
import resource, signal, sys
import ritornello as rt
model = rt.load(sys.argv[1])
model.embedding.weight.data.zero_()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))     # no file may grow beyond: as on a full disk
try:
    rt.save(model, sys.argv[1])
except rt.CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix")
def test_a_full_disk_leaves_the_old_checkpoint(saved) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    assert len(before["model.safetensors"]) > 20_000
    root = Path(rt.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", FULL, saved], cwd=root, capture_output=True, text=True, check=True)
    assert "was not saved" in done.stdout, done.stderr
    assert "unchanged" in done.stdout
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_whatever_stops_the_writing_leaves_the_old_checkpoint(saved, monkeypatch, fault) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def half(_, name: str, __) -> None:
        Path(name).write_bytes(b"half of it")
        raise fault

    monkeypatch.setattr("ritornello.hub.base.save_file", half)
    with pytest.raises(CheckpointError if isinstance(fault, OSError) else KeyboardInterrupt):
        rt.save(model_of(width=32), saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


def test_what_cannot_be_saved_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="is a Linear"):
        rt.save(torch.nn.Linear(2, 2), tmp_path)
    with pytest.raises(InputError, match="Did you mean 'ritornello'"):
        rt.save(model_of(), tmp_path, format="ritornelo")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file; a model is saved to a folder"):
        rt.save(model_of(), tmp_path / "file")


def test_a_format_of_ones_own_is_recognised(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(base, "_formats", dict(base._formats))
    model = model_of()
    rt.hub.register(rt.hub.Format("other", lambda c: c.get("model_type") == "other", lambda folder, config: model))
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    assert rt.load(tmp_path) is model
    with pytest.raises(InputError, match="only read"):
        rt.save(model, tmp_path, format="other")
