"""Our models in the hands of transformers: loading, generating, training, saving."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

import ritornello as rt

transformers = pytest.importorskip("transformers")
adapter = pytest.importorskip("ritornello.hub.huggingface")

VOCABULARY = 96


@pytest.fixture(scope="module")
def ours() -> rt.LanguageModel:
    torch.manual_seed(0)
    pattern = ["gated_delta_net", ("attention", {"window": 8}), "attention"]
    return rt.LanguageModel(rt.ModelConfig(VOCABULARY, width=32, pattern=pattern, tied_embeddings=False)).eval()


@pytest.fixture(scope="module")
def theirs(ours: rt.LanguageModel, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("model")
    rt.save(ours, folder)
    return transformers.AutoModelForCausalLM.from_pretrained(str(folder))


def ids_of(rows: int = 2, length: int = 20) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def streamed(model: rt.LanguageModel, ids: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack(list(model.stream(ids, max_new_tokens=count, temperature=0)), 1)


@torch.no_grad()
def test_what_we_save_transformers_loads(ours, theirs) -> None:
    assert isinstance(theirs, adapter.RitornelloForCausalLM)
    assert torch.equal(theirs(ids_of()).logits, ours(ids_of())[0])
    config = theirs.config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (VOCABULARY, 32, 3)


@torch.no_grad()
def test_what_transformers_saves_we_load(ours, theirs, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    assert torch.equal(rt.load(tmp_path)(ids_of())[0], ours(ids_of())[0])
    again = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype="bfloat16")
    assert again.embedding.weight.dtype == torch.bfloat16


@torch.no_grad()
def test_what_transformers_saves_in_several_files_is_one_model(ours, theirs, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert not (tmp_path / "model.safetensors").exists()
    again = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path))
    for logits in (rt.load(tmp_path)(ids_of())[0], again(ids_of()).logits):
        assert torch.equal(logits, ours(ids_of())[0])


@torch.no_grad()
def test_as_many_logits_as_are_asked_for_and_a_tuple(ours, theirs) -> None:
    whole, state = ours(ids_of())
    for kept in (1, 3):
        torch.testing.assert_close(theirs(ids_of(), logits_to_keep=kept).logits, whole[:, -kept:])
    logits, cache = theirs(ids_of(), use_cache=True, return_dict=False)
    assert torch.equal(logits, whole)
    assert rt.state.nbytes(cache.state) == rt.state.nbytes(state)


def test_generate_is_the_stream(ours, theirs) -> None:
    found = theirs.generate(ids_of(), max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert torch.equal(found[:, 20:], streamed(ours, ids_of(), 12))


def test_padding_is_skipped(ours, theirs) -> None:
    ids, mask = ids_of(), torch.ones(2, 20, dtype=torch.long)
    mask[0, :7] = 0
    found = theirs.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert torch.equal(found[:1, 20:], streamed(ours, ids[:1, 7:], 12))
    assert torch.equal(found[1:, 20:], streamed(ours, ids[1:], 12))


def test_a_search_by_beams_reorders_the_state(theirs) -> None:
    options = {"num_beams": 3, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    cached, whole = (theirs.generate(ids_of(), use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, whole)


@torch.no_grad()
def test_a_cache_goes_on(ours, theirs) -> None:
    first = theirs(ids_of()[:, :9], use_cache=True)
    rest = theirs(ids_of()[:, 9:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits, ours(ids_of())[0][:, 9:], rtol=1e-4, atol=1e-5)
    assert rest.past_key_values.get_seq_length() == 20
    state = ours(ids_of()[:, :9])[1]
    kept = copy.deepcopy(state)
    theirs(ids_of()[:, 9:], past_key_values=adapter.StateCache(state, 9), use_cache=True)
    for one, two in zip(*(pytree.tree_leaves(s) for s in (state, kept)), strict=True):
        assert torch.equal(one, two)  # a state that was handed in is not written to
    with pytest.raises(rt.InputError, match="StateCache"):
        theirs(ids_of(), past_key_values=transformers.DynamicCache())


def test_the_trainer_trains(ours, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = adapter.RitornelloForCausalLM.of(copy.deepcopy(ours))
    data = [{"input_ids": row, "labels": row} for row in ids_of(rows=8, length=16)]
    options = transformers.TrainingArguments(
        str(tmp_path), max_steps=12, per_device_train_batch_size=8, learning_rate=3e-3, report_to=[], disable_tqdm=True,
        save_strategy="steps", save_steps=12, use_cpu=True, logging_strategy="no",
    )  # fmt: skip
    before = model(ids_of(8, 16), labels=ids_of(8, 16)).loss.item()
    transformers.Trainer(model, options, train_dataset=data).train()
    after = model(ids_of(8, 16), labels=ids_of(8, 16)).loss.item()
    assert after < before - 0.3
    saved = rt.load(tmp_path / "checkpoint-12")
    with torch.no_grad():
        assert torch.equal(saved(ids_of())[0], model.eval()(ids_of()).logits)


def test_a_pipeline_writes(theirs) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{i}": i for i in range(VOCABULARY)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="w0")
    write = transformers.pipeline("text-generation", model=theirs, tokenizer=tokenizer)
    (found,) = write("w5 w7 w9", max_new_tokens=4, do_sample=False)
    assert found["generated_text"].startswith("w5 w7 w9") and found["generated_text"].count("w") == 7


def test_what_is_not_understood_is_refused(theirs, tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="inputs_embeds"):
        theirs(inputs_embeds=torch.zeros(1, 2, 32))
    with pytest.raises(rt.InputError, match="device_map"):
        adapter.RitornelloForCausalLM.from_pretrained(str(tmp_path), device_map="auto")
