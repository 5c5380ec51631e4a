"""The adapter to the LM evaluation harness, where that is installed: scores against the model's own loss."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ritornello as rt

pytest.importorskip("lm_eval")
adapter = pytest.importorskip("ritornello.hub.lm_eval")


@pytest.fixture(scope="module")
def model() -> rt.LanguageModel:
    torch.manual_seed(0)
    return rt.LanguageModel(rt.ModelConfig(256, width=32, pattern=["gated_delta_net", "attention"])).eval()


@pytest.fixture(scope="module")
def harness(model):
    return adapter.RitornelloLM(model, batch_size=2)


def request(*args) -> SimpleNamespace:
    return SimpleNamespace(args=args)


@torch.no_grad()
def test_a_continuation_scores_as_the_loss_of_its_ids(model, harness):
    pairs = [("A ball", " rolls"), ("A ball", " is"), ("A ball", "!"), ("", "word"), ("Two", " lines\n")]
    found = harness.loglikelihood([request(*p) for p in pairs], disable_tqdm=True)
    for (context, continuation), (score, greedy) in zip(pairs, found, strict=True):
        before = list(context.encode()) or [ord("\n")]
        ids = torch.tensor([[*before, *continuation.encode()]])
        targets = ids.roll(-1, 1)
        targets[:, : len(before) - 1] = targets[:, -1] = -100
        assert score == pytest.approx(-float(model.loss(ids, targets, reduction="sum")), rel=1e-4)
        likeliest = model(ids)[0][0, len(before) - 1 : -1].argmax(-1)
        assert greedy == torch.equal(likeliest, ids[0, len(before) :])


@torch.no_grad()
def test_a_long_text_is_one(model, harness, monkeypatch):
    text = "The quick brown fox jumps over the lazy dog. " * 3
    ids = torch.tensor([[ord("\n"), *text.encode()]])
    whole = -float(model.loss(ids, reduction="sum"))
    monkeypatch.setattr(adapter, "WINDOW", 17)
    (found,) = harness.loglikelihood_rolling([request(text)])
    assert found == pytest.approx(whole, rel=1e-4)


def test_answers_end_where_they_should(model, harness):
    whole = "".join(model.stream_text("Say", max_new_tokens=20, temperature=0))
    (found,) = harness.generate_until([request("Say", {"until": [], "max_gen_toks": 20})])
    assert found == whole
    end = whole[5:7]
    (found,) = harness.generate_until([request("Say", {"until": [end], "max_gen_toks": 20})])
    assert found == whole[: whole.find(end)]


@pytest.mark.slow
def test_the_harness_runs_a_task(model, tmp_path: Path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval")
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"question": f"{a} and {b} is", "choices": [" more", " less"], "answer": a % 2}
        for a in range(3)
        for b in range(2)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (tmp_path / "small.yaml").write_text(
        "task: small\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: '{{answer}}'\nmetric_list: [{metric: acc}]\n"
    )
    rt.save(model, tmp_path / "model")
    found = lm_eval.simple_evaluate(
        "ritornello", {"pretrained": str(tmp_path / "model")}, tasks=["small"],
        task_manager=tasks.TaskManager(include_path=str(tmp_path), include_defaults=False), bootstrap_iters=0,
    )  # fmt: skip
    assert found is not None and 0 <= found["results"]["small"]["acc,none"] <= 1
