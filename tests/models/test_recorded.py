"""A recorded step gives what a call gives: for every layer, from step to step, and it knows when it no longer holds."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ritornello as rt
from ritornello.layers import catalogue
from ritornello.models import reader, recorded
from ritornello.models.recorded import RecordedStep

MIXERS = sorted(n for n, c in catalogue().items() if c.traits.causal and c.traits.role == "mixer")
CALLED = {
    "forgetting_attention", "fp_rnn", "implicit_ssm", "log_linear", "mom", "relu_attention", "urpe_attention",
}  # fmt: skip
"""Layers that look at numbers in Python."""


def model_of(*pattern, **options) -> rt.LanguageModel:
    torch.manual_seed(0)
    config = rt.ModelConfig(vocab_size=32, width=32, pattern=pattern, depth=len(pattern), **options)
    return rt.LanguageModel(config).eval()


def after(model, rows: int = 2, length: int = 5):
    return model(torch.randint(32, (rows, length)))[1]


def same(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


def check(model, state, steps: int, room: int = 64) -> RecordedStep:
    ids = torch.randint(32, (state.batch, steps, 1))
    step = RecordedStep(model, ids[:, 0], state, room)
    logits, state = model(ids[:, 0], state, logits="last")
    same(step.y, logits)
    for i in range(1, steps):
        assert step.holds()
        logits, state = model(ids[:, i], state, logits="last")
        same(step(ids[:, i]), logits)
    # The state goes on in a call as it would have.
    more = torch.randint(32, (state.batch, 3))
    same(model(more, step.state())[0], model(more, state)[0])
    return step


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_every_layer(name: str) -> None:
    model = model_of(name)
    step = check(model, after(model), 10)
    assert set(step.called) == ({name} if name in CALLED else set())


@pytest.mark.parametrize("ffn", ["moe", "rwkv7_channel_mix"])
@torch.no_grad()
def test_layers_that_are_called_stand_among_those_that_are_played(ffn: str) -> None:
    model = model_of("rwkv7", "mom", rt.Parallel("gla", "attention"), "rwkv7", "forgetting_attention", ffn=ffn)
    step = check(model, after(model), 6)
    assert {"mom", "forgetting_attention"} <= set(step.called)
    assert not {"rwkv7", "gla", "attention"} & set(step.called)


@torch.no_grad()
def test_repeated_blocks_have_states_of_their_own() -> None:
    model = model_of(rt.Repeat(2, "gated_delta_net"), "attention", tied_embeddings=False, logits_soft_cap=5.0)
    check(model, after(model), 6)


@torch.no_grad()
def test_rows_at_different_places() -> None:
    model = model_of(("attention", {"window": 4}), "attention", "mamba2")
    mask = torch.tensor([[True] * 6, [False] * 4 + [True] * 2])
    state = model(torch.randint(32, (2, 6)), mask=mask)[1]
    assert not check(model, state, 9).called


@torch.no_grad()
def test_the_state_given_and_the_state_taken_stay() -> None:
    model = model_of("gla", "attention", "mom")
    state = after(model)
    before = [t.clone() for t in state.tensors()]
    step = RecordedStep(model, torch.randint(32, (2, 1)), state)
    taken = step.state()
    kept = [t.clone() for t in taken.tensors()]
    for _ in range(3):
        step(torch.randint(32, (2, 1)))
    for old, new in zip(before + kept, state.tensors() + taken.tensors(), strict=True):
        assert torch.equal(old, new)


@torch.no_grad()
def test_it_holds_as_long_as_nobody_touches_the_model() -> None:
    model = model_of("gla", "attention")
    ids, state = torch.zeros(2, 1, dtype=torch.long), after(model)

    def step() -> RecordedStep:
        found = RecordedStep(model, ids, state)
        assert found.holds()
        return found

    changed = step()
    model.embedding.weight += 1
    assert not changed.holds()
    changed = step()
    model.final_norm_replaced = torch.nn.Identity()
    changed_again = step()
    assert changed_again.holds()
    model.backbone.get_submodule("final_norm").weight = torch.nn.Parameter(torch.zeros(32))
    assert not changed_again.holds()
    changed = step()
    with rt.backend("torch"):
        assert not changed.holds()
    with rt.explain():
        assert not changed.holds()
    with torch.autocast("cpu", torch.bfloat16):
        assert not changed.holds()
    with FlopCounterMode(display=False):
        assert not changed.holds()
    assert changed.holds()
    handle = model.backbone.blocks[0].register_forward_hook(lambda *_: None)
    assert not changed.holds()
    handle.remove()
    model.train()
    assert not changed.holds()


@torch.no_grad()
def test_room_runs_out() -> None:
    model = model_of("attention")
    step = check(model, after(model), 8, room=8)
    assert not step.holds()
    assert step.left == 0
    with pytest.raises(rt.InputError, match="room for 8"):
        step(torch.zeros(2, 1, dtype=torch.long))


@pytest.mark.parametrize("pattern", [("gated_delta_net", "attention"), ("mom",)])
def test_streams_play_what_they_would_have_called(pattern, monkeypatch) -> None:
    model = model_of(*pattern)
    prompt = torch.randint(32, (2, 4))

    def text(state=None):
        stream = model.stream(prompt, state, max_new_tokens=90, temperature=0)
        found = [next(stream) for _ in range(50)]
        middle = stream.state, stream.unread, stream._reader._recorded is not None
        return torch.stack(found + list(stream), 1), middle

    played, (state, unread, was_recorded) = text()
    assert was_recorded
    monkeypatch.setattr(reader, "WORTH_IT", 10**9)
    called, (*_, was_recorded) = text()
    assert not was_recorded
    assert torch.equal(played, called)
    again = torch.stack(list(model.stream(unread, state, max_new_tokens=40, temperature=0)), 1)
    assert torch.equal(again, called[:, 50:])


def test_a_stream_sees_what_is_done_to_its_model(monkeypatch) -> None:
    model = model_of("gla")
    made = []
    monkeypatch.setattr(recorded, "Tape", lambda tape=recorded.Tape: made.append(tape()) or made[-1])

    def text():
        stream = model.stream(torch.ones(1, 3, dtype=torch.long), max_new_tokens=100, temperature=0)
        for i, ids in enumerate(stream):
            if i == 40:
                with torch.no_grad():
                    model.embedding.weight.roll(1, 0)
                    model.embedding.weight.copy_(model.embedding.weight.roll(1, 0))
            yield int(ids)

    before = model.embedding.weight.detach().clone()
    played = list(text())
    assert len(made) == 2  # once, and once more some steps after the weights had changed
    with torch.no_grad():
        model.embedding.weight.copy_(before)
    monkeypatch.setattr(reader, "WORTH_IT", 10**9)
    assert played == list(text())
    assert len(made) == 2


def test_inference_mode_comes_and_goes(monkeypatch) -> None:
    model = model_of("gla", "attention")
    prompt = torch.ones(1, 3, dtype=torch.long)

    def text():
        stream = model.stream(prompt, max_new_tokens=100, temperature=0)
        for i in range(100):
            with torch.inference_mode(i // 25 % 2 == 0):
                yield int(next(stream))

    played = list(text())
    monkeypatch.setattr(reader, "WORTH_IT", 10**9)
    assert played == list(text())


@torch.no_grad()
def test_a_layer_and_a_model_of_floats_by_themselves() -> None:
    torch.manual_seed(0)
    layer = rt.layers.catalogue()["gated_delta_net"](32)
    model = rt.models.SequenceModel(
        rt.ModelConfig(8, 32, pattern=["lstm", "attention"], depth=2), features=3, outputs=2
    )
    for module, size in ((layer, 32), (model, 3)):
        x = torch.randn(2, 12, 1, size)
        _, state = module(torch.randn(2, 4, size))
        step = RecordedStep(module, x[:, 0], state)
        y, state = module(x[:, 0], state)
        same(step.y, y)
        for i in range(1, 12):
            y, state = module(x[:, i], state)
            same(step(x[:, i]), y)
        for a, b in zip(step.state().tensors(), state.tensors(), strict=True):
            same(a[:, : b.shape[1]] if a.dim() > 1 else a, b)


def test_more_than_a_step_is_refused() -> None:
    model = model_of("gla")
    with pytest.raises(rt.InputError, match="one step of each row"):
        RecordedStep(model, torch.zeros(2, 3, dtype=torch.long), model.initial_state(2))


@torch.no_grad()
def test_an_interrupted_step_leaves_no_state(monkeypatch) -> None:
    model = model_of("gla", "mom", "gla")
    step = RecordedStep(model, torch.zeros(2, 1, dtype=torch.long), after(model))
    monkeypatch.setattr(model.backbone.blocks[1].mixer, "mix", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        step(torch.zeros(2, 1, dtype=torch.long))
    assert not step.holds()
    with pytest.raises(rt.StateError, match="interrupted"):
        step.state()
