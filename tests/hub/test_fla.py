"""Checkpoints of flash-linear-attention: the logits of its forward, however the prompt goes in; saved as they were."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ritornello as rt
from ritornello.errors import CheckpointError
from tests.hub import fla_reference

every_case = pytest.mark.parametrize("name", [c for c in fla_reference.CASES if c != fla_reference.MIRRORED])
IDS = torch.randint(96, (2, 75), generator=torch.Generator().manual_seed(1))


def written(name: str, folder: Path, **changes) -> dict[str, torch.Tensor]:
    """A checkpoint of that library in the folder; its tensors."""
    weights = fla_reference.tensors(name)
    (folder / "config.json").write_text(json.dumps(fla_reference.CASES[name]["config"] | changes))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return weights


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """name → (the reference's logits, our model, the folder that it was read from)."""

    @functools.cache
    def make(name: str):
        folder = tmp_path_factory.mktemp("fla")
        weights = written(name, folder)
        return fla_reference.logits(name, weights, IDS), rt.load(folder), folder

    return make


def near(logits: torch.Tensor, expected: torch.Tensor, within: float = 2e-5) -> None:
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=within)


@every_case
@pytest.mark.parametrize("size", [75, 33, 7, 1])
@torch.no_grad()
def test_whole_and_in_chunks(name: str, size: int, pair) -> None:
    expected, ours, _ = pair(name)
    assert expected.std() > 0.05, "logits that say nothing"
    state, parts = None, []
    for ids in IDS.split(size, 1):
        logits, state = ours(ids, state, donate=state is not None)
        parts.append(logits)
    near(torch.cat(parts, 1), expected)


@pytest.mark.parametrize("name", fla_reference.CASES)
@torch.no_grad()
def test_in_float64(name: str, pair) -> None:
    expected, _, folder = pair(name)
    # RWKV-7's authors leave out the ε under the root by which that library makes a key's length one; HGRN2's bounds
    # are made of each other in float32.
    within = {"rwkv7": 4e-6, "hgrn2": 1e-6}.get(name, 1e-11)
    near(rt.load(folder, dtype=torch.float64)(IDS)[0], expected, within)


@every_case
@pytest.mark.parametrize("left", [True, False])
@torch.no_grad()
def test_padding(name: str, left: bool, pair) -> None:
    expected, ours, _ = pair(name)
    ids, mask = torch.zeros(2, 75, dtype=torch.long), torch.zeros(2, 75, dtype=torch.bool)
    span = slice(22, None) if left else slice(53)
    ids[0], mask[0], ids[1, span], mask[1, span] = IDS[0], True, IDS[1, :53], True
    logits, _ = ours(ids, mask=mask)
    near(logits[0], expected[0])
    near(logits[1, span], expected[1, :53])


@every_case
@torch.no_grad()
def test_what_is_saved_is_what_was_read(name: str, pair, tmp_path: Path) -> None:
    _, ours, folder = pair(name)
    config = json.loads((folder / "config.json").read_text())
    rt.save(ours, tmp_path, format=config["model_type"])
    again, weights = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    assert again.keys() == weights.keys()
    if (bounds := again.pop("model.lower_bounds", None)) is not None:  # a softmax forgets what all have in common
        theirs = weights.pop("model.lower_bounds")
        torch.testing.assert_close(bounds - bounds[0], theirs - theirs[0], rtol=1e-5, atol=1e-6)
    assert all(torch.equal(again[key], weights[key]) for key in weights)
    told = json.loads((tmp_path / "config.json").read_text())
    for key, value in config.items():
        if key == "value_dim":
            value = value[0]
        assert told[key] == pytest.approx(value) if isinstance(value, float) else told[key] == value, key
    near(rt.load(tmp_path)(IDS)[0], ours(IDS)[0].double(), within=1e-5 if bounds is not None else 0)


@pytest.mark.parametrize(
    ("name", "changes"),
    {
        "gla": {"use_short_conv": True},
        "retnet": {"num_kv_heads": 1},
        "hgrn2": {"use_short_conv": True},
        "delta_net": {"use_gate": True},
        "gated_deltanet": {"attn": {"layers": [1]}},
        "kda": {"use_short_conv": False},
        "rwkv6": {"norm_first": False},
        "rwkv7": {"value_dim": [64, 64, 32]},
    }.items(),
)
def test_what_is_not_supported_is_named(name: str, changes, tmp_path: Path) -> None:
    written(name, tmp_path, **changes)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        rt.load(tmp_path)
