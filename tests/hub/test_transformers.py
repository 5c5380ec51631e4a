"""Checkpoints of transformers: the same logits, however the prompt goes in; and what is saved, transformers reads."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

import ritornello as rt
from ritornello.hub import base
from tests.hub.formats import CASES, reference

pytest.importorskip("transformers")

TOLERANCE = 2e-5
every_case = pytest.mark.parametrize("name", CASES)


def ids_of(rows: int = 2, length: int = 75) -> torch.Tensor:
    return torch.randint(96, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """name → (transformers' model, its logits, ours)."""

    @functools.cache
    def make(name: str):
        theirs = reference(CASES[name])
        folder = tmp_path_factory.mktemp("theirs")
        theirs.save_pretrained(folder)
        return theirs, whole(theirs), rt.load(folder)

    return make


@torch.no_grad()
def whole(theirs) -> torch.Tensor:
    return theirs(ids_of(), use_cache=False).logits


def near(logits: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)


@every_case
@torch.no_grad()
def test_the_whole_pass(name: str, pair) -> None:
    theirs, expected, ours = pair(name)
    assert expected.std() > 0.05, "logits that say nothing"
    near(ours(ids_of())[0], expected)
    assert ours.parameter_count == theirs.num_parameters()


@every_case
@pytest.mark.parametrize("size", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 7)), 33])
@torch.no_grad()
def test_in_chunks(name: str, size: int, pair) -> None:
    _, expected, ours = pair(name)
    state, parts = None, []
    for ids in ids_of().split(size, 1):
        logits, state = ours(ids, state, donate=state is not None)
        parts.append(logits)
    near(torch.cat(parts, 1), expected)


@every_case
@pytest.mark.parametrize("left", [True, False])
@torch.no_grad()
def test_padding(name: str, left: bool, pair) -> None:
    _, expected, ours = pair(name)
    short = 75 - 22
    ids, mask = torch.zeros(2, 75, dtype=torch.long), torch.zeros(2, 75, dtype=torch.bool)
    ids[0], mask[0] = ids_of()[0], True
    span = slice(22, None) if left else slice(short)
    ids[1, span], mask[1, span] = ids_of()[1, :short], True
    logits, state = ours(ids, mask=mask)
    near(logits[0], expected[0])
    near(logits[1, span], expected[1, :short])
    logits, _ = ours(ids_of()[1:, short:], rt.state.rows(state, [1]))
    near(logits, expected[1:, short:])


@every_case
@pytest.mark.parametrize("tokens", [8, pytest.param(64, marks=pytest.mark.slow)])
@torch.no_grad()
def test_greedy_generation(name: str, tokens: int, pair) -> None:
    if not CASES[name].rows:
        pytest.skip("transformers' own cache is wrong here")
    theirs, _, ours = pair(name)
    prompt = ids_of(CASES[name].rows, 20)
    expected = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
    )
    found = torch.stack(list(ours.stream(prompt, max_new_tokens=tokens, temperature=0)), 1)
    assert torch.equal(found, expected[:, 20:])


@every_case
def test_every_setting_is_understood(name: str, tmp_path: Path) -> None:
    reference(CASES[name]).config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert base.find(CASES[name].format).unknown(config) == []
    assert base.find(CASES[name].format).unknown(config | {"new": 1, "old": None}) == ["new"]


@every_case
@torch.no_grad()
def test_what_is_saved_transformers_reads(name: str, pair, tmp_path: Path) -> None:
    theirs, expected, ours = pair(name)
    rt.save(ours, tmp_path, format=CASES[name].format)
    again, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    logits = whole(again.eval())
    assert torch.equal(logits, expected) if CASES[name].exact else torch.allclose(logits, expected, atol=5e-6)
    assert torch.equal(rt.load(tmp_path)(ids_of())[0], ours(ids_of())[0])


@every_case
@torch.no_grad()
def test_bfloat16_and_shards(name: str, pair, tmp_path: Path) -> None:
    theirs, expected, _ = pair(name)
    reference(CASES[name]).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = rt.load(tmp_path)
    assert ours.embedding.weight.dtype == torch.bfloat16
    again = type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()
    near(rt.load(tmp_path, dtype=torch.float32)(ids_of())[0], whole(again))
    assert torch.nn.functional.cosine_similarity(ours(ids_of())[0].float(), expected, dim=-1).min() > 0.9
