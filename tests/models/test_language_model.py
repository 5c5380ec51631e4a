"""The language model: any cut is the same, skipping and packing, the loss, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import ritornello as rt
from ritornello.errors import InputError, StateError
from ritornello.layers import Call
from ritornello.models import loss as loss_module
from ritornello.sequence import Sequence

VOCAB, WIDTH = 23, 16
WINDOWED = ("attention", {"window": 5, "heads": 2})
PATTERNS = {
    "hybrid": ["gated_delta_net"] * 3 + [WINDOWED],
    "all attention": ["attention"],
    "recurrent": ["min_gru", "gated_delta_net"],
    "parallel": [rt.Parallel(WINDOWED, "min_gru"), "gated_delta_net"],
    "repeat": [rt.Repeat(2, "min_gru", WINDOWED), "lstm"],
}


def model_of(pattern="hybrid", **options) -> rt.LanguageModel:
    torch.manual_seed(0)
    options = {"depth": len(PATTERNS[pattern]), "ffn": "gated_mlp", "init_std": 0.2} | options
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=VOCAB, width=WIDTH, pattern=PATTERNS[pattern], **options))
    return model.to_dtype(torch.float64)


def ids_of(*shape: int) -> torch.Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


def same(a, b) -> None:
    if isinstance(a, rt.State):
        assert a.spec == b.spec
        for one, two in zip(a.tensors(), b.tensors(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    else:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("cut", [0, 1, 7, 18, 19])
def test_any_cut_is_the_same(pattern: str, cut: int) -> None:
    model, ids = model_of(pattern), ids_of(3, 19)
    whole, end = model(ids)
    first, middle = model(ids[:, :cut])
    second, last = model(ids[:, cut:], middle)
    same(torch.cat([first, second], 1), whole)
    same(last, end)
    assert end["position"].tolist() == [19] * 3


@pytest.mark.parametrize("pattern", PATTERNS)
def test_skipping_equals_separate_rows(pattern: str) -> None:
    model, ids = model_of(pattern), ids_of(4, 12)
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[0, :5], mask[1, 8:], mask[2, 3:6], mask[3] = False, False, False, False  # left, right, a hole, nothing
    logits, state = model(ids, mask=mask)
    last, _ = model(ids, mask=mask, logits="last")
    hidden, _ = model(ids, mask=mask, logits="none")
    more, _ = model(ids[:, :4], state)
    for row in range(4):
        alone, its_state = model(ids[row : row + 1, mask[row]])
        same(logits[row, mask[row]], alone[0])
        same(more[row], model(ids[row : row + 1, :4], its_state)[0][0])
        same(last[row], alone[0, -1] if row < 3 else torch.zeros_like(last[row]))
    assert not logits[~mask].any()
    assert not hidden[~mask].any()
    assert state["position"].tolist() == [7, 8, 9, 0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_packing_equals_separate_calls(pattern: str) -> None:
    model, ids, ends = model_of(pattern), ids_of(1, 20), torch.tensor([0, 6, 6, 7, 17])
    logits, state = model(ids, cu_seqlens=ends)
    last, _ = model(ids, cu_seqlens=ends, logits="last")
    for row, (a, b) in enumerate([(0, 6), (6, 6), (6, 7), (7, 17)]):
        alone, its_state = model(ids[:, a:b])
        same(logits[:, a:b], alone)
        same(last[row], alone[0, -1] if b > a else torch.zeros_like(last[row]))
        same(model(ids[:, :3], rt.state.rows(state, row))[0], model(ids[:, :3], its_state)[0])
    assert not logits[:, 17:].any(), "beyond the last sequence"


@pytest.mark.parametrize("method", [rt.Sequential(), rt.Auto()], ids=str)
def test_methods_reach_the_layers(method) -> None:
    model, ids = model_of("recurrent"), ids_of(2, 9)
    same(model(ids, method=method)[0], model(ids)[0])
    with rt.explain() as log:
        model(ids, method=method)
    assert ("delta_rule" in str(log)) == (method == rt.Auto())


def test_logits_of_the_last_step() -> None:
    model, ids = model_of(), ids_of(2, 9)
    same(model(ids, logits="last")[0], model(ids)[0][:, -1])
    assert model(ids[:, :0], logits="last")[0].shape == (2, VOCAB)


# ----------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_the_cross_entropy_of_the_next_id() -> None:
    model, ids = model_of(logits_soft_cap=3.0), ids_of(2, 9)
    logits = model(ids)[0]
    assert logits.abs().max() < 3
    same(model.loss(ids), F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
    total, state = model.loss(ids, reduction="sum", return_state=True)
    same(total, 16 * model.loss(ids))
    same(state, model(ids)[1])


def test_the_loss_knows_where_sequences_end() -> None:
    model, ids, ends = model_of(), ids_of(1, 20), torch.tensor([0, 6, 6, 7, 17])
    parts = [model.loss(ids[:, a:b], reduction="sum") for a, b in [(0, 6), (6, 7), (7, 17)]]
    same(model.loss(ids, cu_seqlens=ends, reduction="sum"), sum(parts))
    same(model.loss(ids, cu_seqlens=ends), sum(parts) / 14)
    explicit = torch.cat([ids[:, 1:], ids[:, :1]], 1)
    explicit[0, [5, 6, 16]] = -100
    same(model.loss(ids, explicit, cu_seqlens=ends), sum(parts) / 14)


def test_the_loss_skips_what_the_mask_skips() -> None:
    model, ids = model_of(), ids_of(2, 10)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, :4], mask[1, 5:7] = False, False
    parts = [model.loss(ids[row : row + 1, mask[row]], reduction="sum") for row in (0, 1)]
    same(model.loss(ids, mask=mask, reduction="sum"), sum(parts))
    targets = torch.zeros_like(ids)
    logits = model(ids, mask=mask)[0]
    same(model.loss(ids, targets, mask=mask), F.cross_entropy(logits[mask], targets[mask]))


def test_chunks_change_neither_loss_nor_gradients(monkeypatch) -> None:
    model, ids = model_of(), ids_of(3, 11)
    whole = model.loss(ids)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    seen = []
    head = model._logits
    monkeypatch.setattr(model, "_logits", lambda h: seen.append(len(h)) or head(h))
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 7 * VOCAB)
    chunked = model.loss(ids)
    same(chunked, whole)
    for got, wanted in zip(torch.autograd.grad(chunked, list(model.parameters())), expected, strict=True):
        same(got, wanted)
    assert max(seen) == 7
    assert len(seen) == 2 * 5, "each chunk is computed again in the backward"


def test_a_carried_state_is_the_same_as_one_long_sequence() -> None:
    model, ids = model_of(), ids_of(2, 17)
    first, state = model.loss(ids[:, :8], ids[:, 1:9], reduction="sum", return_state=True)
    second = model.loss(ids[:, 8:16], ids[:, 9:], state, reduction="sum")
    same(first + second, model.loss(ids, reduction="sum"))
    assert model.loss(ids[:, :1]) == 0, "nothing to predict"


# --------------------------------------------------------------------------------------------------- states and weights


def test_a_state_through_a_file_is_bit_exact(tmp_path) -> None:
    model, ids = model_of("repeat"), ids_of(2, 9)
    _, state = model(ids)
    rt.state.save(state, tmp_path / "state")
    loaded = rt.state.load(tmp_path / "state")
    assert all(torch.equal(a, b) for a, b in zip(state.tensors(), loaded.tensors(), strict=True))
    assert torch.equal(model(ids, loaded)[0], model(ids, state)[0])


def test_the_initial_state_is_what_none_means() -> None:
    for pattern in PATTERNS:
        model, ids = model_of(pattern), ids_of(2, 4)
        same(model(ids, model.initial_state(2))[0], model(ids)[0])


def test_repeated_blocks_share_weights_but_not_states() -> None:
    model = model_of("repeat")
    assert len(model.backbone.blocks) == 2
    assert list(model.initial_state(1)["0"].leaves) == ["0.0", "0.1", "1.0", "1.1"]
    _, state = model(ids_of(1, 6))
    turns = [state["0"]["0.0"]["mixer"]["h"], state["0"]["1.0"]["mixer"]["h"]]
    assert not torch.allclose(*turns)


def test_parallel_mixers_are_averaged_or_summed() -> None:
    for combine, share in (("mean", 0.5), ("sum", 1.0)):
        config = rt.ModelConfig(
            VOCAB, WIDTH, rt.Parallel("min_gru", "lstm", combine=combine), ffn=None, final_norm=False
        )
        model = rt.LanguageModel(config)
        block, ids = model.backbone.blocks[0], ids_of(2, 5)
        x = model.embedding(ids)
        normed = block.mixer_norm(x)
        apart = sum(mixer(normed)[0] for mixer in block.mixer.mixers)
        torch.testing.assert_close(model(ids, logits="none")[0], x + share * apart)


@pytest.mark.parametrize("tied", [True, False])
def test_options_change_what_they_say(tied: bool) -> None:
    options = dict(tied_embeddings=tied, norm="layer_norm", ffn=None, embedding_scale=4.0)
    model = model_of(**options, final_norm=False)
    assert (model.head is None) == tied
    assert model.backbone.final_norm is None
    ids, weight = ids_of(1, 3), model.embedding.weight if tied else model.head.weight
    hidden, _ = model(ids, logits="none")
    same(model(ids)[0], hidden @ weight.T)
    inside = []
    model.backbone.blocks[0].mixer_norm.register_forward_hook(lambda _, args, out: inside.extend([args[0], out]))
    model(ids)
    same(inside[0], 4 * model.embedding(ids))
    same(inside[1].mean(-1), torch.zeros(1, 3, dtype=torch.float64))


def test_the_residual_stream_stays_float32() -> None:
    for wide, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        model = model_of(residual_float32=wide).to_dtype(torch.bfloat16)
        seen = []
        model.backbone.blocks[1].mixer_norm.register_forward_hook(lambda _, a, out, seen=seen: seen.append(a[0].dtype))
        logits, state = model(ids_of(2, 5))
        assert (seen, logits.dtype) == ([dtype], torch.bfloat16)
        assert state["3"]["mixer"]["k"].dtype == torch.bfloat16
        assert state["0"]["mixer"]["S"].dtype == torch.float32
        same(model(ids_of(2, 5), model.initial_state(2))[0], logits)


def test_dropout_is_for_training_only() -> None:
    model, ids = model_of(dropout=0.5), ids_of(1, 5)
    assert not torch.equal(model(ids)[0], model(ids)[0])
    model.eval()
    assert torch.equal(model(ids)[0], model(ids)[0])


# ---------------------------------------------------------------------------------------------------------- refusals

BAD = {
    "floats": (lambda m: m(torch.zeros(1, 3)), "wanted \\(B, T\\) integers"),
    "one dimension": (lambda m: m(torch.zeros(3, dtype=torch.long)), "wanted \\(B, T\\) integers"),
    "an id too large": (lambda m: m(torch.full((1, 3), VOCAB)), "from 0 to 22"),
    "a negative id": (lambda m: m(torch.full((1, 3), -1)), "range from -1"),
    "mask and cu_seqlens": (
        lambda m: m(ids_of(1, 3), mask=torch.ones(1, 3).bool(), cu_seqlens=torch.tensor([0, 3])),
        "were both given",
    ),
    "a mask of another shape": (lambda m: m(ids_of(1, 3), mask=torch.ones(1, 4).bool()), "`mask` has shape \\(1, 4\\)"),
    "cu_seqlens beyond": (lambda m: m(ids_of(1, 3), cu_seqlens=torch.tensor([0, 4])), "`cu_seqlens` is"),
    "logits": (lambda m: m(ids_of(1, 3), logits="first"), "'all', 'last' or 'none'"),
    "a method by name": (lambda m: m(ids_of(1, 3), method="fused"), "`method` is 'fused'"),
    "a list": (lambda m: m.loss([1, 2], ids_of(1, 2)), "wanted \\(B, T\\) integers"),
    "targets of another shape": (lambda m: m.loss(ids_of(1, 3), ids_of(1, 2)), "`targets` is \\(1, 2\\) .*wanted"),
    "bytes": (lambda m: m(ids_of(1, 3).to(torch.uint8)), "torch.uint8; wanted \\(B, T\\) integers.* int64 or int32"),
    "ids elsewhere": (lambda m: m(ids_of(1, 3).to("meta")), "`ids` is on meta, and the model on cpu. Move"),
    "targets of floats": (lambda m: m.loss(ids_of(1, 3), torch.zeros(1, 3)), "torch.float32; wanted a tensor of int"),
    "targets in a list": (lambda m: m.loss(ids_of(1, 3), [[1, 2, 3]]), "`targets` is a list"),
    "targets elsewhere": (lambda m: m.loss(ids_of(1, 3), ids_of(1, 3).to("meta")), "`targets` is on meta"),
    "targets too large": (lambda m: m.loss(ids_of(1, 3), ids_of(1, 3) + VOCAB), "`targets` range from .* from 0 to 22"),
    "a reduction": (lambda m: m.loss(ids_of(1, 3), reduction="none"), "'mean' or 'sum'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_a_sentence(case: str) -> None:
    call, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence):
        call(model_of())


def test_a_state_that_does_not_fit_is_refused() -> None:
    model, ids = model_of(), ids_of(2, 3)
    _, state = model(ids)
    with pytest.raises(StateError, match="this layer has width=16, layers=attention"):
        model_of("all attention")(ids, state)
    with pytest.raises(StateError, match="holds 2 rows"):
        model(ids[:1], state)
    with pytest.raises(StateError, match="kind 'gated_delta_net'"):
        model(ids, state["0"]["mixer"])
    cut = rt.State(state.kind, state.version, state.spec, {"position": state["position"]})
    with pytest.raises(StateError, match="no part '0'"):
        model(ids, cut)


@torch.no_grad()
def test_norms_after_the_layers_and_of_the_embeddings() -> None:
    model = model_of("recurrent", norm_after=["gated_delta_net"], embedding_norm=True)
    back, ids = model.backbone, ids_of(2, 9)
    before, after = back.blocks
    x = back.embedding_norm(model.embedding(ids))
    x = x + before.mixer(before.mixer_norm(x))[0]
    x = x + before.ffn(before.ffn_norm(x))[0]
    x = x + after.mixer_norm(after.mixer(x)[0])
    x = x + after.ffn_norm(after.ffn(x)[0])
    same(model(ids, logits="none")[0], back.final_norm(x))
    assert rt.ModelConfig.from_dict(model.config.to_dict()) == model.config
    with pytest.raises(InputError, match="There is no layer 'gated_delta_nett'"):
        model_of("recurrent", norm_after=["gated_delta_nett"])


@torch.no_grad()
def test_zero_centred_norms_multiply_by_one_more_than_their_weight() -> None:
    plain, centred = model_of("recurrent"), model_of("recurrent", norm="zero_centred_rms_norm")
    stream = ("mixer_norm.weight", "ffn_norm.weight", "final_norm.weight")
    weights = {n: torch.randn_like(w) if n.endswith(stream) else w for n, w in plain.state_dict().items()}
    plain.load_state_dict(weights)
    centred.load_state_dict({n: w - 1 if n.endswith(stream) else w for n, w in weights.items()})
    same(centred(ids_of(2, 9))[0], plain(ids_of(2, 9))[0])


@torch.no_grad()
def test_a_stream_halved_on_paper_is_a_stream_halved() -> None:
    model = model_of("all attention", depth=5, halve_every=2, norm="layer_norm", norm_eps=0.1)
    plain = model_of("all attention", depth=5, norm="layer_norm", norm_eps=0.1)
    plain.load_state_dict(model.state_dict())
    x, call = plain.embedding(ids_of(2, 9)), Call(Sequence(2, 9))
    for i, block in enumerate(plain.backbone.blocks):
        block.mixer.out_proj.weight.mul_(0.5 ** (i // 2))
        block.ffn.out_proj.weight.mul_(0.5 ** (i // 2))
        x = block.advance(x, None, call)[0] / (2 if i % 2 else 1)
    same(model(ids_of(2, 9), logits="none")[0], plain.backbone.final_norm(x))
    with pytest.raises(InputError, match="halve_every"):
        model_of(halve_every=-1)
