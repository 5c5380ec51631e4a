"""Streams: what they yield, what their state has read, how they stop, and text."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello.errors import CheckpointError, InputError
from ritornello.models import load_stream
from ritornello.models import stream as stream_module
from ritornello.models.sample import Sampler

PATTERNS = {
    "hybrid": ["gated_delta_net", "gated_delta_net", "gated_delta_net", ("attention", {"window": 5})],
    "a growing cache": ["attention", "min_gru"],
}


@pytest.fixture(params=PATTERNS)
def model(request) -> rt.LanguageModel:
    return model_of(request.param)


def model_of(pattern: str = "hybrid", **options) -> rt.LanguageModel:
    torch.manual_seed(0)
    config = rt.ModelConfig(vocab_size=256, width=16, pattern=PATTERNS[pattern], init_std=0.3, **options)
    return rt.LanguageModel(config).to_dtype(torch.float64)


def prompt_of(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1))


def greedy(model: rt.LanguageModel, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Every step reads everything again: slow, and certainly right."""
    for _ in range(steps):
        ids = torch.cat([ids, model(ids)[0][:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, -steps:]


def taken(stream, steps: int) -> torch.Tensor:
    return torch.stack([next(stream) for _ in range(steps)], 1)


def test_greedy_equals_reading_everything_again(model) -> None:
    prompt = prompt_of(3, 9)
    stream = model.stream(prompt, temperature=0, max_new_tokens=12)
    assert torch.equal(torch.stack(list(stream), 1), greedy(model, prompt, 12))
    assert stream.state["position"].tolist() == [9 + 11] * 3, "the last id is not read"


def test_the_state_and_the_unread_id_go_on(model, tmp_path) -> None:
    prompt = prompt_of(2, 9)
    expected = greedy(model, prompt, 14)
    stream = model.stream(prompt, temperature=0)
    taken(stream, 5)
    stream.save(tmp_path / "stream")
    state, unread = stream.state, stream.unread
    assert torch.equal(taken(stream, 9), expected[:, 5:]), "the stream itself"
    assert torch.equal(taken(model.stream(unread, state, temperature=0), 9), expected[:, 5:]), "the kept state"
    ids, loaded = load_stream(tmp_path / "stream")
    assert torch.equal(taken(model.stream(ids, loaded, temperature=0), 9), expected[:, 5:]), "the file"
    both = rt.state.fork(rt.state.rows(state, 1), 2)
    forked = taken(model.stream(unread[1:].expand(2, 1), both, temperature=0), 9)
    assert torch.equal(forked, expected[1:, 5:].expand(2, -1)), "a fork"


def test_a_state_that_was_handed_out_is_never_written_to(model) -> None:
    _, given = model(prompt_of(2, 4))
    stream = model.stream(prompt_of(2, 3), given)
    handed = []
    for _ in range(4):
        next(stream)
        handed.append(stream.state)
        taken(stream, 3)
    copies = [rt.state.fork(s) for s in (given, *handed)]
    taken(stream, 20)
    for copy, state in zip(copies, (given, *handed), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(copy.tensors(), state.tensors(), strict=True))
    assert [int(s["position"][0]) for s in handed] == [4 + 3 + 4 * i for i in range(4)]


def test_going_on_reads_nothing_again() -> None:
    model = model_of()
    stream = model.stream(prompt_of(1, 50))
    next(stream)
    read = []
    model.embedding.register_forward_hook(lambda _, args, out: read.append(args[0].numel()))
    taken(model.stream(stream.unread, stream.state), 3)
    assert read == [1, 1, 1]


def test_a_long_prompt_is_read_in_windows(model, monkeypatch) -> None:
    prompt = prompt_of(2, 23)
    mask = torch.ones(2, 23, dtype=torch.bool)
    mask[0, 15:], mask[1, :12] = False, False
    whole = [taken(model.stream(prompt, temperature=0, mask=m), 6) for m in (None, mask)]
    monkeypatch.setattr(stream_module, "WINDOW", 4)
    assert torch.equal(taken(model.stream(prompt, temperature=0), 6), whole[0])
    assert torch.equal(taken(model.stream(prompt, temperature=0, mask=mask), 6), whole[1])


def test_prompts_of_different_length(model) -> None:
    prompt = prompt_of(3, 9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, :4], mask[1, 3:], mask[2, 4:6] = False, False, False
    together = taken(model.stream(prompt, temperature=0, mask=mask), 8)
    for row in range(3):
        assert torch.equal(together[row : row + 1], greedy(model, prompt[row : row + 1, mask[row]], 8))


def test_a_row_that_has_ended_stays_ended() -> None:
    model, prompt = model_of(), prompt_of(2, 9)
    expected = greedy(model, prompt, 12)
    stop = next(int(i) for i in expected[0, :4] if i not in expected[1, :8])
    at = expected[0].tolist().index(stop)
    stream = model.stream(prompt, temperature=0, stop=stop, max_new_tokens=8)
    got = torch.stack(list(stream), 1)
    assert torch.equal(got[1], expected[1, :8])
    assert got[0].tolist() == expected[0, : at + 1].tolist() + [stop] * (7 - at)
    assert stream.state["position"].tolist() == [9 + at, 9 + 7]
    ends = model.stream(prompt[:1], temperature=0, stop=[stop, 999])
    assert [int(i) for i in ends] == expected[0, : at + 1].tolist()


def test_the_generator_decides() -> None:
    model, prompt = model_of(), prompt_of(2, 3)

    def draw(seed: int) -> list[list[int]]:
        stream = model.stream(prompt, generator=torch.Generator().manual_seed(seed), temperature=2.0, top_k=50)
        return taken(stream, 10).tolist()

    before = torch.random.get_rng_state()
    assert draw(1) == draw(1) != draw(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_dropout_and_no_graph_while_it_writes() -> None:
    model, prompt = model_of(dropout=0.5).train(), prompt_of(2, 6)
    got = taken(model.stream(prompt, temperature=0), 8)
    assert model.training
    assert model.backbone.blocks[0].dropout.training
    assert torch.equal(got, greedy(model.eval(), prompt, 8))
    assert not any(t.requires_grad for t in model.stream(prompt).state.tensors())


def test_the_state_of_a_recurrent_model_does_not_grow() -> None:
    stream = model_of().stream(prompt_of(1, 7))
    sizes = set()
    for _ in range(60):
        next(stream)
        sizes.add(rt.state.nbytes(stream.state))
    assert len(sizes) == 1


# ------------------------------------------------------------------------------------------------------------ sampling

LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).expand(4000, -1)


def shares(**options) -> torch.Tensor:
    ids = Sampler(generator=torch.Generator().manual_seed(0), **options)(LOGITS)
    return torch.bincount(ids, minlength=4) / len(ids)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"temperature": 3.0}, [0, 1, 2, 3]),
        ({"temperature": 0}, [1]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.6}, [1]),  # the likeliest holds 0.644
        ({"top_p": 0.7}, [1, 3]),
        ({"top_p": 1.0}, [0, 1, 2, 3]),
        ({"top_k": 3, "top_p": 0.99}, [1, 2, 3]),
        ({"top_k": 3, "top_p": 0.8}, [1, 3]),  # of the three that are left, the first holds 0.665
    ],
    ids=str,
)
def test_what_is_drawn_and_how_often(options, kept) -> None:
    expected = torch.zeros(4)
    expected[kept] = torch.softmax(LOGITS[0, kept] / (options.get("temperature") or 1), -1)
    torch.testing.assert_close(shares(**options), expected, atol=0.03, rtol=0)


# ---------------------------------------------------------------------------------------------------------------- text


def test_text_streams_character_by_character(monkeypatch) -> None:
    model = model_of()
    written = iter("né→\N{SNAKE}".encode() + b"\xff!" + "é".encode()[:1])
    monkeypatch.setattr(Sampler, "__call__", lambda self, logits: torch.tensor([next(written)]))
    pieces = list(model.stream_text("a prompt", max_new_tokens=13))
    assert pieces == ["n", "é", "→", "\N{SNAKE}", "\ufffd", "!", "\ufffd"]


def test_any_bytes_are_a_prompt_and_a_state_goes_on() -> None:
    model = model_of()
    whole = "".join(model.stream_text(b"\xff\xfe prompt", temperature=0, max_new_tokens=20))
    first = model.stream_text(b"\xff\xfe prompt", temperature=0)
    ids = [next(first.stream) for _ in range(8)]
    rest = model.stream(first.unread, first.state, temperature=0, max_new_tokens=12)
    assert bytes(int(i) for i in [*ids, *rest]).decode("utf-8", "replace") == whole
    assert next(iter(model.stream_text(first.unread, first.state))) is not None


BAD = {
    "no ids": (lambda m: m.stream(prompt_of(1, 0)), "at least one id a row"),
    "a list": (lambda m: m.stream([1, 2, 3]), "The prompt is list"),
    "no text": (lambda m: m.stream_text(""), "at least one id a row"),
    "a row of padding": (lambda m: m.stream(prompt_of(2, 3), mask=torch.tensor([[True] * 3, [False] * 3])), "no ids"),
    "a mask of another shape": (lambda m: m.stream(prompt_of(2, 3), mask=torch.ones(2, 2).bool()), "wanted \\(2, 3\\)"),
    "a temperature": (lambda m: m.stream(prompt_of(1, 3), temperature=-1), "`temperature` is -1"),
    "top_k": (lambda m: m.stream(prompt_of(1, 3), top_k=0), "`top_k` is 0"),
    "top_p": (lambda m: m.stream(prompt_of(1, 3), top_p=0), "`top_p` is 0"),
    "a length": (lambda m: m.stream(prompt_of(1, 3), max_new_tokens=-1), "`max_new_tokens` is -1"),
    "rows of text": (lambda m: m.stream_text(prompt_of(2, 3)), "streamed from one"),
    "no tokens": (
        lambda m: rt.LanguageModel(rt.ModelConfig(9, 16, "lstm")).stream_text("x"),
        "nothing that turns text",
    ),
    "another's state": (
        lambda m: m.stream(prompt_of(1, 3), rt.LanguageModel(rt.ModelConfig(9, 16)).initial_state(1)),
        "has",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_a_sentence(case: str) -> None:
    call, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence):
        call(model_of())


def test_a_state_without_unread_ids_is_no_stream(tmp_path) -> None:
    rt.state.save(model_of().initial_state(1), tmp_path / "state")
    with pytest.raises(CheckpointError, match="not the ids that a stream had yet to read"):
        load_stream(tmp_path / "state")
