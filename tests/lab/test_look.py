"""What is told of a model that reads: against products written out, PyTorch's own Jacobians, and what is known."""

from __future__ import annotations

import math
import re

import pytest
import torch
from safetensors.torch import load_file
from torch.func import jacrev

import ritornello as rt
from ritornello.cells import LSTMCell
from ritornello.cli import main
from ritornello.lab.look import (
    LONGEST,
    Path,
    Solved,
    eigenvalues,
    gates,
    horizon,
    horizon_of_weights,
    implicit_attention,
    influence,
    look,
    recording,
    state_norms,
    surprise,
    view,
)
from ritornello.lab.look.linear import directions
from ritornello.lab.look.memories import in_the_texts_time
from ritornello.lab.look.page import surprise_page
from ritornello.lab.look.read import marks, read_off
from ritornello.lab.look.view import Look
from ritornello.transition import MLSTM, Block, Decay, Delta, Dense, Diagonal, Gated, LowRank, Selective, Softmax

T = 7


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(1, T, *shape, dtype=torch.float64)


def captured(layer, steps: int = T):
    x = torch.randn(1, steps, layer.width)
    with torch.no_grad(), recording(layer) as found:
        layer(x)
    (one,) = found
    return x, one


# --------------------------------------------------------------------------------------------------- implicit attention


def test_gla_is_a_product_of_decays() -> None:
    _, one = captured(rt.layers.GLA(16, heads=2, value_heads=4))
    t, q = one.solved[0].recurrence, one.solved[0].query
    A = implicit_attention(t, q)
    assert A.shape == (4, T, T)
    for head in range(4):
        for now in range(T):
            for then in range(T):
                decay = t.log_decay[0, then + 1 : now + 1, head].sum(0).exp()
                wanted = (q[0, now, head // 2] * decay * t.k[0, then, head // 2]).sum() * t.k.shape[-1] ** -0.5
                torch.testing.assert_close(A[head, now, then], wanted if then <= now else torch.tensor(0.0))


def test_delta_rule_is_a_product_of_householders() -> None:
    q, k, v, beta = rand(2, 3), rand(2, 3), rand(2, 5), rand(2).sigmoid()
    log_decay = -rand(2).abs()
    A = implicit_attention(Delta(k, v, beta, log_decay), q)
    for head in range(2):
        for then in range(T):
            written = beta[0, then, head] * k[0, then, head]
            for now in range(then, T):
                if now > then:
                    b, key = beta[0, now, head], k[0, now, head]
                    written = log_decay[0, now, head].exp() * (written - b * key * (key @ written))
                torch.testing.assert_close(A[head, now, then], q[0, now, head] @ written / 3**0.5)
    assert (A.triu(1) == 0).all()


AFFINE_IN_VALUES = {
    "decay with a bonus": lambda: (Decay(rand(1, 3), rand(2, 5), bonus=torch.rand(2, 3).double()), rand(1, 3)),
    "low rank": lambda: (LowRank(rand(2, 3), rand(2, 5), 0.3 * rand(2, 3), rand(2, 3), -rand(2, 3).abs()), rand(2, 3)),
    "mlstm": lambda: (MLSTM(rand(2, 3), rand(2, 5), rand(2), rand(2)), rand(2, 3)),
    "softmax": lambda: (Softmax(rand(2), rand(2, 5), -rand(2).abs()), None),
}


@pytest.mark.parametrize("case", AFFINE_IN_VALUES)
def test_the_outputs_are_the_values_weighed(case: str) -> None:
    t, q = AFFINE_IN_VALUES[case]()
    values = t.values if isinstance(t, Softmax) else t.v
    wanted = t.scan_read(q, t.start())[0][0]
    torch.testing.assert_close(torch.einsum("hts,shv->thv", implicit_attention(t, q), values[0]), wanted)


def test_channels_of_their_own_are_averaged() -> None:
    """With positive numbers the mean of |A| over equal channels is A itself."""
    x, delta, B, C = rand(1).expand(-1, -1, 2), rand(1).abs().expand(-1, -1, 2), rand(3).abs(), rand(3).abs()
    mamba = Selective(x, delta, B, -torch.ones(2, 3).double(), torch.ones(2).double())
    y = mamba.scan_read((C, x), mamba.start())[0]
    torch.testing.assert_close(implicit_attention(mamba, (C, x))[0] @ x[0], y[0])
    gated = Gated(rand(1).expand(-1, -1, 2), x)
    torch.testing.assert_close(implicit_attention(gated, None)[0] @ x[0], gated.scan(gated.start())[0][0])


@pytest.mark.parametrize("window", [None, 37])
def test_attention_is_attention(window: int | None) -> None:
    """At 100 steps a window of 37 runs in two blocks of queries."""
    layer = rt.layers.Attention(16, heads=2, kv_heads=1, window=window, rope_size=0)
    x, one = captured(layer, 100)
    q, k = layer.q_proj(x)[0].unflatten(-1, (2, 8)), layer.kv_proj(x)[0, :, :8]
    lag = torch.arange(100).unsqueeze(1) - torch.arange(100)
    unseen = (lag < 0) | (lag >= (window or 100))
    wanted = (torch.einsum("thk,sk->hts", q, k) / 8**0.5).masked_fill(unseen, -math.inf).softmax(-1)
    torch.testing.assert_close(one.attention, wanted)


def test_forgetting_attention_in_blocks() -> None:
    layer = rt.layers.ForgettingAttention(8, heads=1)
    x, one = captured(layer, 300)
    v = layer.kv_proj(x)[0, :, 8:]
    torch.testing.assert_close(layer.out_proj(one.attention[0] @ v), layer(x)[0][0])


# --------------------------------------------------------------------------------------------------------------- memory


def test_influence_is_the_norm_of_the_maps() -> None:
    t = Delta(rand(2, 3), rand(2, 5), rand(2).sigmoid(), -rand(2, 3).abs())
    matrix = t.as_element().matrix[0]  # (T, H, K, K)
    found = influence(t)
    for head in range(2):
        whole = torch.eye(3).double()
        for now in range(2, T):
            torch.testing.assert_close(found[head, now - 1, 1], whole.norm() / 3**0.5)
            whole = matrix[now, head] @ whole
    assert found.triu(1).abs().max() == 0


def test_influence_of_vectors() -> None:
    a = rand(4).abs()
    wanted = a[0, 2:5].prod(0).norm() / 2
    torch.testing.assert_close(influence(Diagonal(a, rand(4)))[0, 4, 1], wanted)
    blocks = torch.diag_embed(a[..., :2]).unsqueeze(-1)  # two decoupled states of one channel
    torch.testing.assert_close(influence(Block(blocks, rand(2, 1)))[0, 4, 1], a[0, 2:5, :2].prod(0).norm() / 2**0.5)
    torch.testing.assert_close(influence(Dense(torch.diag_embed(a), rand(4)))[0, 4, 1], wanted)


def test_directions_that_stand_for_more() -> None:
    G = directions(40, torch.empty(0).double())
    torch.testing.assert_close(G @ G.T, 2.5 * torch.eye(16).double())
    assert torch.equal(directions(5, torch.empty(0)), torch.eye(5))


def test_horizons_of_an_exponential() -> None:
    """e^(−1/7.5) a step: 1/e is passed with the eighth, and eight steps hold 1 − 1/e of the weight."""
    a = torch.full((1, 200, 1), math.exp(-1 / 7.5))
    t = Diagonal(a, torch.ones_like(a))
    assert horizon(influence(t)).item() == 8
    assert horizon_of_weights(implicit_attention(t, None)).item() == 8
    kept = Diagonal(torch.ones_like(a), torch.ones_like(a))
    assert horizon(influence(kept)).item() == math.inf


def test_norms_are_of_the_states() -> None:
    t = Decay(rand(2, 3), rand(2, 5))
    states = torch.einsum("thk,thv->thkv", t.k[0], t.v[0]).cumsum(0)
    torch.testing.assert_close(state_norms(t, t.start()), states.flatten(2).norm(dim=-1).T)


# ------------------------------------------------------------------------------------------------ eigenvalues and gates


def test_eigenvalues_of_a_delta_rule() -> None:
    k, beta, log_decay = rand(1, 4), 2 * rand(1).sigmoid(), -rand(1).abs()
    found = eigenvalues(Delta(k, rand(1, 2), beta, log_decay))[0]
    assert found.shape == (T, 4) and found.imag.abs().max() < 1e-6
    d = log_decay[0].exp()
    turned = d * (1 - beta[0] * k[0].pow(2).sum(-1))
    wanted = torch.cat([d.expand(-1, 3), turned], -1).sort(-1).values
    torch.testing.assert_close(found.real.sort(-1).values, wanted)


def test_two_reflections_are_a_rotation() -> None:
    """By twice the angle between them: eigenvalues e^(±2iθ)."""
    angles = torch.tensor([0.0, 0.4, 0.0, 1.1]).double()
    k = torch.stack([angles.cos(), angles.sin()], -1).view(1, 4, 1, 2)
    found = eigenvalues(Delta(k, k, torch.full((1, 4, 1), 2.0).double()), substeps=2)[0]
    wanted = torch.tensor([[-0.8, 0.8], [-2.2, 2.2]]).double()
    torch.testing.assert_close(found.angle().sort(-1).values, wanted)
    torch.testing.assert_close(found.abs(), torch.ones(2, 2).double())


def test_gates_are_those_of_the_transition() -> None:
    beta, log_decay = rand(2).sigmoid(), -rand(2).abs()
    found = gates(Delta(rand(2, 3), rand(2, 3), beta, log_decay))
    assert torch.equal(found["write"], beta[0])
    torch.testing.assert_close(found["decay"][..., 0], log_decay[0].exp())
    found = gates(Gated(rand(4), rand(4)))
    torch.testing.assert_close(found["decay"] + found["write"], torch.ones(T, 4).double())
    assert gates(Decay(rand(2, 3), rand(2, 3))) == {}


# ------------------------------------------------------------------------------------------------------ nonlinear cells


def test_a_cell_along_its_path() -> None:
    cell, x = LSTMCell(4, 4).double(), rand(4)
    start = cell.initial_state(1, x)
    with torch.no_grad():
        path = Path(Solved(cell, cell.drive(x), start, x))
        found, carried, values = path.sensitivity()[0], path.influence()[0], path.eigenvalues()[0]
    J = jacrev(lambda x: rt.run(cell, x, method=rt.Sequential()).y[0])(x)  # (T, 4, 1, T, 4)
    torch.testing.assert_close(found, J[:, :, 0].pow(2).sum((1, 3)).sqrt())

    def onward(h):
        return torch.cat(rt.run(cell, x[:, 3:5], (h[:, :4], h[:, 4:]), method=rt.Sequential()).state, -1)

    J = jacrev(onward)(path.after[2:3])[0, :, 0]
    torch.testing.assert_close(carried[4, 2], J.norm() / 8**0.5)
    u = cell.drive(x)[:, 3]
    J = jacrev(lambda h: torch.cat(cell.step(u, (h[:, :4], h[:, 4:])), -1))(path.after[2:3])[0, :, 0]
    torch.testing.assert_close(values[3].abs().sort().values, torch.linalg.eigvals(J).abs().sort().values)
    torch.testing.assert_close(path.state_norms()[0], path.after.norm(dim=-1))


# ------------------------------------------------------------------------------------------------------------ a model


LARGE = {"s4", "lssl"}  # states of thousands of numbers: seconds each


MIXERS = {name for name, layer in rt.layers.catalogue().items() if layer.traits.role == "mixer"}


@pytest.mark.parametrize("kind", sorted(MIXERS - LARGE))
def test_every_layer_has_a_view_or_a_reason(kind: str) -> None:
    layer = rt.layers.build(kind, 16)
    _, one = captured(layer, 5)
    with torch.no_grad():
        found = view(0, one)
    for what in ("attention", "norms", "eigenvalues"):
        assert (getattr(found, what) is None) == (what in found.missing)
    assert (found.gates == {}) == ("gates" in found.missing)
    if found.attention is not None:
        assert found.attention.shape[-2:] == (5, 5) and found.attention.isfinite().all()
        assert found.horizon is not None and len(found.horizon) in (1, len(found.attention))
    assert found.norms is None or found.norms.shape[-1] == 5
    assert "mix" not in vars(layer)


@pytest.mark.parametrize("shared", [True, False])
def test_memories_in_the_texts_time(shared: bool) -> None:
    layer = rt.layers.MoM(16, heads=2, memories=4, top_k=2, shared=shared)
    read: list[torch.Tensor] = []
    layer.norm.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    _, one = captured(layer, 9)
    with torch.no_grad():
        found = view(0, one)
        v = in_the_texts_time(one.solved[0], one.route, 9).recurrence.v
    assert found.attention is not None and found.norms is not None and found.eigenvalues is not None
    o = torch.einsum("hts,shv->thv", found.attention, v[0])
    torch.testing.assert_close(o.unflatten(1, (layer.count, 2)).sum(1), read[0][0], rtol=1e-4, atol=1e-5)
    norms, chosen = found.norms.unflatten(0, (layer.count, 2)), one.route.chosen
    for memory in range(4):
        still = torch.tensor([memory not in step for step in chosen[1:].tolist()])
        moved = norms[memory, :, 1:] != norms[memory, :, :-1]
        assert torch.equal(moved.all(0), ~still), "it stands still where others are written to"


def test_every_run_of_a_layer_in_order() -> None:
    nodes = [rt.Repeat(2, "gla"), rt.Parallel("min_gru", "attention")]
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=20, width=16, pattern=nodes))
    ids = torch.randint(20, (1, T))
    before = model(ids)[0]
    with torch.no_grad(), recording(model) as found:
        assert torch.equal(model(ids)[0], before)
    assert [one.layer.kind for one in found] == ["gla", "gla", "min_gru", "attention"]
    assert all(one.state_bytes > 0 for one in found)
    assert model.training and look(model, ids).layers[2].kind == "min_gru" and model.training


def test_surprise() -> None:
    ids = torch.tensor([[3, 1, 2]])
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = 100.0
    found = surprise(logits, ids)[0]
    assert found[0].isnan()
    torch.testing.assert_close(found[1:], torch.tensor([2.0, 0.0]))


def test_bytes_of_one_character_are_shown_together() -> None:
    found = Look(["\0", "a", "", "é", "\n", ""], [], torch.tensor([math.nan, 1.0, 2.0, 3.0, 0.5, 4.0]))
    (first, *rest) = read_off(found)
    assert first[0] == "\0" and math.isnan(first[1])
    assert rest == [("a", 1.0), ("é", 5.0), ("\n", 0.5), ("\ufffd", 4.0)]
    assert marks(["a b\n", "\0"]) == ["a·b↵", "∅"]


def test_the_text_as_a_page() -> None:
    pieces = ["\0", "<b>", " c", "\n", "d"]
    page = surprise_page(Look(pieces, [], torch.tensor([math.nan, 3.0, 24.0, 0.0, 6.0])))
    assert re.findall(r'--s:([\d.]+)" title="([\d.]+) bits">([^<]*)<', page) == [
        ("0.250", "3.00", "&lt;b&gt;"), ("1.000", "24.00", " c"), ("0.000", "0.00", "↵"), ("0.500", "6.00", "d"),
    ]  # fmt: skip
    assert 'title="nothing came before it">∅</span>' in page
    assert "↵</span>\n" in page, "a line ends where the text's does"
    assert "8.25 bits a token over 5 tokens, at most 24.00" in page
    listed = re.findall(r"<tr><td>([\d.]+)</td><td>(\d)", page)
    assert listed == [("24.00", "2"), ("6.00", "4"), ("3.00", "1"), ("0.00", "3")]
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"https?://|@import|url\(|src=", page)


# --------------------------------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    pattern = [("gated_delta_net", {"heads": 2}), "attention", "lstm"]
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=256, width=16, pattern=pattern))
    path = tmp_path_factory.mktemp("look") / "model"
    rt.save(model, path)
    return path


def test_look(folder, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    assert main(["look", str(folder), "--text", "naïve $x$", "--out", str(out)]) == 0
    told = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in told[1:4]] == ["gated_delta_net", "attention", "lstm"]
    assert told[2][4] == "–" and float(told[1][4]) <= 1
    pictures = {"attention-0", "attention-1", "attention-2", "norms", "memory", "eigenvalues", "gates", "surprise"}
    assert {path.stem for path in out.glob("*.png")} == pictures
    assert all(path.stat().st_size < 200_000 and path.read_bytes()[:4] == b"\x89PNG" for path in out.glob("*.png"))
    assert "<title>Ritornello: surprise</title>" in (out / "surprise.html").read_text(encoding="utf-8")
    arrays = load_file(out / "arrays.safetensors")
    assert arrays["layers.0.attention"].shape == (2, 11, 11)  # ten bytes after the boundary
    assert arrays["layers.0.eigenvalues"].shape[-1] == 2 and arrays["surprise"][1:].isfinite().all()


MISTAKES = {
    "no such model": (["{no}", "--text", "some"], "no"),
    "too short": (["{model}", "--text", ""], "1 tokens; wanted 2"),
    "too long": (["{model}", "--text", "a" * LONGEST], f"wanted 2 to {LONGEST}"),
    "no text": (["{model}"], "either --text TEXT or --file FILE"),
    "no such file": (["{model}", "--file", "{no}"], "No such file"),
    "no such layer": (["{model}", "--text", "some", "--layer", "3"], "0 to 2"),
    "no such view": (["{model}", "--text", "some", "--what", "gate"], "Did you mean 'gates'"),
    "a view it has not": (["{model}", "--text", "some", "--layer", "1", "--what", "gates"], "Layer 1 (attention)"),
    "a folder it may not write": (["{model}", "--text", "some", "--out", "{model}/config.json"], "Give another place"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str, folder, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    arguments, sentence = MISTAKES[case]
    names = {"{model}": str(folder), "{no}": str(tmp_path / "no")}
    arguments = [a.replace("{model}", str(folder)) if a not in names else names[a] for a in arguments]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    assert main(["look", *arguments, *out]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
