"""Reproductions: what a claim demands, how it is judged, and what is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ritornello import tasks
from ritornello.cli import main
from ritornello.lab.compare.contender import build
from ritornello.lab.reproduce import CLAIMS, Claim, Trial, choose, min_gru, reproduce
from ritornello.lab.reproduce import run as running
from ritornello.lab.reproduce.claim import CONFIRMED, REFUTED
from ritornello.lab.reproduce.min_gru import MIN_GRU, SourceCode
from ritornello.lab.reproduce.passing import StatePassing
from tests.lab.comparisons import Echo, Here

TOY = Claim(
    name="toy",
    claimed="minGRU echoes what it reads; one that may not train does not.",
    source="Nobody 2024",
    task="echo",
    length=12,
    trials=(Trial("min_gru", at_least=0.9, name="minGRU"), Trial("lstm", at_most=0.95)),
    steps=60,
    depth=1,
    width=16,
    rates=(3e-2, 1e-4),
)


@pytest.fixture
def toy(monkeypatch):
    """The claim, its task, and a pool without processes."""
    monkeypatch.setitem(tasks.catalogue.__globals__["_tasks"], "echo", Echo)
    monkeypatch.setitem(CLAIMS, "toy", TOY)
    monkeypatch.setattr(running, "Pool", Here)
    return TOY


def results(claim: Claim, scores: dict[tuple[int, float], list[float]]) -> list[dict]:
    return [
        {"trial": trial, "lr": lr, "seed": seed, "score": score}
        for (trial, lr), found in scores.items()
        for seed, score in enumerate(found)
    ]


def test_the_better_rate_counts_on_both_sides():
    found = {(0, 1e-2): [0.1, 0.2, 0.3], (0, 1e-4): [0.2, 0.95, 1.0], (1, 1e-2): [0.1, 0.2, 0.9], (1, 1e-4): [0.3] * 3}
    finding = TOY.judge(results(TOY, found))
    assert finding.verdict == CONFIRMED
    assert finding.rows[0] == ("minGRU", "≥ 0.9", [0.2, 0.95, 1.0], True), "two of three seeds are enough"
    assert finding.rows[1] == ("lstm", "≤ 0.95", [0.3] * 3, True)


def test_one_contender_that_comes_out_otherwise_refutes():
    worse = TOY.judge(results(TOY, {(0, 1e-2): [0.89], (1, 1e-2): [0.1]}))
    assert (worse.verdict, [met for *_, met in worse.rows]) == (REFUTED, [False, True])
    better = TOY.judge(results(TOY, {(0, 1e-2): [1.0], (1, 1e-2): [0.96]}))
    assert (better.verdict, [met for *_, met in better.rows]) == (REFUTED, [True, False])


def test_a_contender_may_be_wanted_above_another():
    """The margin is of medians, each at its better rate; one that is missing is no floor."""
    claim = replace(TOY, trials=(TOY.trials[0], Trial("lstm", above=(0, 0.1))))
    found = {(0, 3e-2): [0.5, 0.6, 0.7], (1, 3e-2): [0.1, 0.7, 0.9], (1, 1e-4): [0.0, 0.69, 0.69]}
    assert claim.judge(results(claim, found)).rows[1] == ("lstm", "+ 0.1", [0.1, 0.7, 0.9], True)
    less = claim.judge(results(claim, {**found, (0, 1e-4): [0.61, 0.61, 0.5]}))
    assert not less.rows[1][-1], "0.7 is not 0.1 above 0.61"
    assert all(claim.needs(w, results(claim, found), 3) for w in claim.work(3) if w["trial"] == 1)
    assert not claim.judge(results(claim, {(1, 3e-2): [1.0, 1.0, 1.0]})).rows[0][-1]


def test_what_is_settled_is_not_asked_for_again():
    seeds = 3
    first = {(0, 3e-2): [0.9, 0.8, 1.0], (1, 3e-2): [0.1, 0.96, 0.97]}
    learned = [w for w in TOY.work(seeds) if TOY.needs(w, results(TOY, first), seeds)]
    assert {(w["trial"], w["lr"]) for w in learned} == {(0, 3e-2), (1, 3e-2)}, "one has learned it, one should not have"
    open_yet = {(0, 3e-2): [0.9, 0.8, 0.8], (1, 3e-2): [0.1, 0.96, 0.94]}
    assert all(TOY.needs(w, results(TOY, open_yet), seeds) for w in TOY.work(seeds))
    unfinished = {(0, 3e-2): [1.0, 1.0]}
    assert all(TOY.needs(w, results(TOY, unfinished), seeds) for w in TOY.work(seeds))


def test_what_is_missing_has_no_verdict():
    assert TOY.judge(results(TOY, {(0, 1e-2): [1.0]})).verdict is None


def test_the_judgement_of_min_gru():
    text = [
        {"kind": "text", "layer": layer, "seed": 0, "loss": loss} for layer, loss in (("min_gru", 2.0), ("lstm", 2.0))
    ]
    times = [{"kind": "time", "part": part, "ratio": 200.0} for part in ("gru", "lstm")]
    assert MIN_GRU.judge(text + times).verdict == CONFIRMED
    assert MIN_GRU.judge(text + [{**t, "ratio": 20.0} for t in times]).verdict == REFUTED
    assert MIN_GRU.judge([{**text[0], "loss": 2.2}, text[1], *times]).verdict == REFUTED
    assert MIN_GRU.judge(times).verdict is None


def test_min_gru_and_lstm_are_as_large():
    sizes = [
        build(min_gru.BLOCKS.format(layer), SourceCode(), width, 4).parameter_count
        for layer, width in min_gru.WIDTHS.items()
    ]
    assert max(sizes) <= 1.05 * min(sizes)


def test_min_gru_is_faster_than_a_loop(monkeypatch):
    monkeypatch.setattr(min_gru, "TIMED", {"batch": 2, "length": 128, "width": 8})
    assert min_gru.perform({"kind": "time", "claim": "min_gru", "part": "gru", "loop": "gru"}, print)["ratio"] > 3


def test_source_code_is_read_in_windows():
    task = SourceCode()
    batch = task.sample(4, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    text = bytes(min_gru._library()[:2000].tolist())
    assert b"import" in text


@pytest.mark.parametrize("name", [n for n, c in CLAIMS.items() if isinstance(c, Claim)])
def test_every_claim_can_be_built(name):
    claim = CLAIMS[name]
    assert isinstance(claim, Claim)
    for trial in claim.trials:
        task = tasks.find(claim.task).preset("small", **{**claim.fields, **trial.fields})
        assert build(trial.layer, task, claim.width, claim.depth).parameter_count
        assert task.sample(1, trial.length or claim.length, generator=torch.Generator()).mask.any()
        assert [trial.at_least, trial.at_most, trial.above].count(None) == 2
    wanted = claim.work(3)
    assert len(wanted) == 3 * len(claim.rates) * len(claim.trials)
    assert any(word in claim.source for word in ("arXiv", "19", "20"))


def test_a_claim_is_run_and_kept(toy, tmp_path):
    out = tmp_path / "claims.jsonl"
    (finding,) = reproduce([toy], seeds=1, workers=1, out=out)
    assert [met for *_, met in finding.rows] == [True, False], "an LSTM echoes as well"
    assert finding.verdict == REFUTED
    lines = out.read_text().splitlines()
    assert len(lines) == 2, "both learned it at the first rate; the second could change nothing"
    (again,) = reproduce([toy], seeds=1, workers=1, out=out)
    assert again == finding
    assert out.read_text().splitlines() == lines, "nothing is done twice"
    same = replace(toy, name="same", trials=toy.trials[::-1])
    (second,) = reproduce([same], seeds=1, workers=1, out=out)
    assert second.rows == finding.rows[::-1]
    assert out.read_text().splitlines() == lines, "nor for another claim that asks for the same"
    sized = replace(toy, fields={"test_lengths": (6, 12)})
    first, then = (next(reproduce([sized], seeds=1, workers=1, out=out)) for _ in range(2))
    assert first == then
    assert len(out.read_text().splitlines()) == 4, "what JSON made a list of was a tuple"
    lines = out.read_text().splitlines()
    other = replace(toy, steps=2, trials=toy.trials[:1])
    (third,) = reproduce([other], seeds=1, workers=1, out=out)
    assert third.rows[0][2] != finding.rows[0][2], "runs of other sizes are not taken"


def test_what_fails_is_told(toy):
    broken = replace(toy, trials=(Trial("attention:heads=3", at_least=0.5), toy.trials[1]))
    (finding,) = reproduce([broken], seeds=1, workers=1)
    assert finding.verdict is None
    assert len(finding.problems) == 1
    assert "does not divide" in finding.problems[0]


def test_the_command_line(toy, capsys):
    assert main(["reproduce", "toy", "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "claimed: minGRU echoes what it reads" in printed
    assert "source: Nobody 2024" in printed
    assert "NO  lstm" in printed
    assert "verdict: not as published (1 seeds" in printed
    assert main(["reproduce", "list"]) == 0
    assert set(CLAIMS) <= set(capsys.readouterr().out.splitlines())
    assert [c.name for c in choose(["all"])] == list(CLAIMS)


@pytest.mark.parametrize(("options", "told"), [(["--out", "kept.jsonl"], "is in kept.jsonl"), ([], "with --out FILE")])
def test_an_interrupt_tells_what_is_kept(toy, monkeypatch, tmp_path, capsys, options, told):
    monkeypatch.chdir(tmp_path)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Here, "run", interrupted)
    assert main(["reproduce", "toy", "--seeds", "1", *options]) == 130
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [(["negative_eigenvalue"], "'negative_eigenvalues'"), (["all", "--seeds", "0"], "`seeds` is 0")],
)
def test_mistakes(argv, told, capsys):
    assert main(["reproduce", *argv]) == 2
    assert told in capsys.readouterr().err


def test_states_are_passed_on(toy):
    """Training goes on from the state before it; what is scored begins in zero all the same."""
    task = Echo()
    torch.manual_seed(0)
    learner = StatePassing(build("min_gru", task, 16, 1), task, 1e-3, 0)
    first = task.sample(8, generator=torch.Generator().manual_seed(0)).inputs
    torch.testing.assert_close(learner._hidden(first), learner.model.hidden(first)[0])
    after = learner.model.hidden(first)[1]
    torch.testing.assert_close(learner._hidden(first), learner.model.hidden(first, after)[0])
    assert learner.carried is not None
    assert not any(t.requires_grad for t in learner.carried.tensors())


def test_what_is_kept_of_a_shorter_length(toy):
    claim = replace(toy, kept_from=6, trials=(replace(toy.trials[0], passing=True), toy.trials[1]))
    passed, plain = (w | {"steps": 1} for w in (claim.work(1)[0], claim.work(1)[-1]))
    found = running.perform(passed, lambda part: None)
    assert found["score"] == pytest.approx(max(0, found["raw"] - 0.25) / max(1e-9, found["before"] - 0.25))
    assert running._is(found, passed)
    other = {**passed}
    del other["passing"]
    assert not running._is(found, other), "a run that passed states on is not one that did not"
    assert "passing" not in plain


def test_scores_go_from_chance_to_best(toy):
    work = toy.work(1)[0] | {"steps": 1}
    found = running.perform(work, lambda part: None)
    assert found["score"] == pytest.approx(max(0.0, (found["raw"] - 0.25) / 0.75))
    assert 0 <= found["score"] <= 1
    assert not math.isnan(found["raw"])
