"""Comparisons: budgets, equal sizes, training, what is kept of a killed run, and what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ritornello import tasks
from ritornello.cli import main
from ritornello.errors import InputError
from ritornello.lab.compare import Budget, Folder, Plan, compare, mean_of, work
from ritornello.lab.compare import run as running
from ritornello.lab.compare.contender import build, choose, equal_size, family, measure_sizes, title
from ritornello.lab.compare.means import t_quantile
from ritornello.lab.compare.plan import Agenda
from ritornello.lab.compare.pool import Pool
from ritornello.lab.compare.speed import measure_speed
from ritornello.lab.compare.store import Store
from ritornello.lab.compare.trial import Learner, Limit, evaluate, rate, train
from ritornello.layers import catalogue
from tests.lab.comparisons import Echo, Here, records

ECHO = Echo()


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    """The task in the catalogue, for as long as a test runs."""
    monkeypatch.setitem(tasks.catalogue.__globals__["_tasks"], "echo", Echo)


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(running, "Pool", Here)
    monkeypatch.setattr(
        work, "measure_speed", lambda *a: {"lengths": [8], "tokens_per_second": [1.0], "saved_bytes": [1]}
    )


def learner(lr: float = 3e-2, seed: int = 0, layer: str = "min_gru") -> Learner:
    torch.manual_seed(seed)
    return Learner(build(layer, ECHO, 16, 1), ECHO, lr, seed)


# ------------------------------------------------------------------------------------------------- budgets and names


@pytest.mark.parametrize(
    ("words", "amount", "unit"),
    [("60s", 60, "s"), ("2m", 120, "s"), ("1.5h", 5400, "s"), ("500", 500, "steps"), ("20 steps", 20, "steps"),
     ("1e12FLOP", 1e12, "FLOP")],
)  # fmt: skip
def test_budgets(words, amount, unit):
    budget = Budget.parse(words)
    assert (budget.amount, budget.unit) == (amount, unit)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("words", ["", "fast", "-5s", "0s", "0", "0.5", "0FLOP", "5 weeks"])
def test_mistaken_budgets(words):
    with pytest.raises(InputError, match="`budget` is"):
        Budget.parse(words)


def test_shares_of_a_budget_make_the_whole():
    budget = Budget.parse("20s")
    sweep, seed = budget.sweep_seconds(2), budget.seed_seconds(2, 3)
    assert sweep is not None
    assert seed is not None
    assert sweep + 3 * seed == pytest.approx(40), "two workers for twenty seconds"
    assert budget.steps(0.5, 0, 10.0) == 20
    assert Budget.parse("1e6FLOP").steps(9.0, 1e5, None) == 10


def test_names_of_layers():
    everything = choose(["all"])
    assert set(everything) == {name for name, cls in catalogue().items() if cls.traits.causal}
    delta = choose(["delta rule"])
    assert "delta_net" in delta
    assert all(family(name) == "delta rule" for name in delta)
    assert choose(["delta_rule", "delta_net"]) == delta, "written otherwise, and once"
    signed = "delta_net:negative_eigenvalues=true"
    assert choose([signed, "gla+attention:window=8"]) == [signed, "gla+attention:window=8"]
    assert (title(signed), family(signed), family("gla+attention")) == ("delta_net ±", "delta rule", "hybrid")


@pytest.mark.parametrize(
    ("layers", "names", "options", "told"),
    [
        (["lsmt"], ["echo"], {}, "Did you mean 'lstm'"),
        (["delta ruel"], ["echo"], {}, "'delta rule'"),
        (["gla+atention"], ["echo"], {}, "'attention'"),
        (["gla"], ["parrity"], {}, "Did you mean 'parity'"),
        ([], ["echo"], {}, "No layers"),
        (["gla"], ["echo"], {"equal": "params"}, "'parameters'"),
        (["gla"], ["echo"], {"preset": "large"}, "`preset` is 'large'"),
        (["gla"], ["echo"], {"seeds": 0}, "`seeds` is 0"),
        (["", " "], ["echo"], {}, "No layers"),
        (["gla:hedas=2"], ["echo"], {}, "no option 'hedas'. Did you mean 'heads'"),
        (["gla+attention:heads=3"], ["echo"], {}, "does not divide"),
        (["mamba:state_size=big"], ["echo"], {}, "'mamba:state_size=big' of width 64 cannot be built"),
    ],
)
def test_mistaken_plans(layers, names, options, told):
    with pytest.raises(InputError) as error:
        Plan.of(layers, names, "10s", **options)
    assert told in str(error.value)


def test_a_plan_through_json():
    plan = Plan.of(["gla", "lstm"], ["echo"], "10s", equal="state")
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert plan.difference(again) is None
    assert plan.difference(Plan.of(["gla"], ["echo"], "10s", equal="state")) == "layers gla, not gla,lstm"


# ------------------------------------------------------------------------------------------------------- equal sizes


@pytest.mark.parametrize("layer", ["lstm", "min_gru", "gated_delta_net", "gla+lstm"])
def test_equal_parameters(layer):
    want = build("attention", ECHO, 64, 2).parameter_count
    name, width = equal_size(layer, ECHO, 64, 2, "parameters")
    got = build(name, ECHO, width, 2).parameter_count
    nearest = min(abs(math.log(build(name, ECHO, width + d, 2).parameter_count / want)) for d in (-8, 8))
    assert abs(math.log(got / want)) <= nearest
    assert name == layer


def test_equal_state():
    def size(name: str, width: int) -> int:
        return measure_sizes(build(name, ECHO, width, 2), ECHO).state_bytes

    want = size("gated_delta_net", 32)
    name, width = equal_size("gla", ECHO, 32, 2, "state")
    assert 0.6 < size(name, width) / want < 1.6
    assert equal_size("lstm", ECHO, 32, 2, "state") == ("lstm", 8 * 32), "as wide as it may be, which is too small"
    name, width = equal_size("gla+attention", Echo(train_length=256), 32, 2, "state")
    assert width == 32
    assert name.startswith("gla+attention:window=")
    long = Echo(train_length=256)
    got = measure_sizes(build(name, long, width, 2), long).state_bytes
    assert got == pytest.approx(measure_sizes(build("gated_delta_net", long, 32, 2), long).state_bytes, rel=0.1)
    assert equal_size("lstm", ECHO, 32, 2, "compute") == ("lstm", 32)


def test_sizes_are_counted_by_hand():
    model = build("lstm", ECHO, 16, 1)
    sizes = measure_sizes(model, ECHO)
    weights = model.parameter_count
    assert (sizes.width, sizes.parameters, sizes.state_bytes) == (16, weights, 2 * 16 * 4)
    assert sizes.token_flops == 6 * (weights - 4 * 16) + 15 * 2 * 16


# ---------------------------------------------------------------------------------------------------------- training


def test_it_learns_and_repeats():
    first, second, other = learner(), learner(), learner(seed=1)
    curve = train(first, Limit(40))
    assert curve == [(n, s, loss) for (n, s, _), (_, _, loss) in zip(curve, train(second, Limit(40)), strict=True)]
    assert [c[2] for c in train(other, Limit(40))] != [c[2] for c in curve]
    assert curve[-1][0] == first.steps == 40
    assert first.tokens == 40 * 8 * 6
    assert curve[-1][2] < 0.1 < curve[0][2]
    assert evaluate(first.model, ECHO) == {6: 1.0, 12: 1.0}


def test_the_loss_is_the_tasks_own():
    one = learner()
    batch = ECHO.sample(5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(one._loss(batch), ECHO.loss(one.model(batch.inputs)[0], batch))


def test_a_slow_machine_ends_in_time():
    slow = learner()
    slow.seconds = 5.0
    curve = train(slow, Limit(1000, seconds=5.01))
    assert slow.steps < 1000
    assert curve


def test_a_loss_that_is_no_number_changes_nothing():
    one = learner()
    with torch.no_grad():
        one.model.head.bias.fill_(math.nan)
    before = one.model.embedding.weight.clone()
    one.step()
    assert one.lost
    assert one.validate() == math.inf
    assert torch.equal(one.model.embedding.weight, before)


def test_the_rate_rises_and_falls():
    rates = [rate(n / 100, 100) for n in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
    assert rate(0, 1) == 1, "one step is a step"


def test_halving_keeps_the_better():
    learners = [learner(lr) for lr in (1e-5, 3e-2, 1e-4, 3e-4)]
    lr, losses = work._halve(learners, 8, lambda part: None)
    assert lr == 3e-2
    assert losses["0.03"] < losses["0.0003"] < losses["1e-05"]
    assert [x.steps for x in learners].count(8) == 2, "the worse half stops"
    assert work._rungs(4) * 8 == sum(x.steps for x in learners)
    assert (work._rungs(1), work._rungs(2), work._rungs(3)) == (0, 2, 5)


def test_rates_that_are_alike_go_to_the_higher(monkeypatch):
    monkeypatch.setattr(Learner, "validate", lambda self: 1.0 + self.lr)
    assert work._halve([learner(lr) for lr in (1e-4, 3e-4)], 1, lambda part: None)[0] == 3e-4
    monkeypatch.setattr(Learner, "validate", lambda self: math.inf)
    assert work._halve([learner(lr) for lr in (1e-4, 3e-4)], 1, lambda part: None)[0] in (1e-4, 3e-4)


def test_speed_is_of_every_length():
    found = measure_speed("min_gru", 8, 1)
    assert len(found["tokens_per_second"]) == len(found["lengths"]) == 3
    short, _, long = found["saved_bytes"]
    assert long == pytest.approx(16 * short, rel=0.2)


# -------------------------------------------------------------------------------------------------------- statistics


def test_means():
    mean = mean_of([1.0, 2.0, 3.0])
    assert (mean.value, mean.count, mean.least, mean.most) == (2.0, 3, 1.0, 3.0)
    assert mean.half_width == pytest.approx(2.4841, rel=1e-3), "4.3027 / √3"
    assert mean.interval(0, 4) == (0, 4)
    assert mean_of([0.5]).interval(0, 1) is None
    assert t_quantile(30) == pytest.approx(2.0423, abs=1e-3)
    assert t_quantile(16) == pytest.approx(2.1199, abs=1e-3)


# ------------------------------------------------------------------------------------------------ store and agenda


def test_an_unfinished_line_is_not_read_and_cut_off(tmp_path):
    store = Store(tmp_path / "results.jsonl")
    assert store.read() == []
    store.append({"a": 1})
    with store.path.open("ab") as file:
        file.write(b'{"b": ' + b"2" * 200_000)
    assert store.read() == [{"a": 1}]
    store.append({"c": 3})
    assert store.read() == [{"a": 1}, {"c": 3}]
    store.path.write_bytes(b'{"only')
    store.append({"d": 4})
    assert store.read() == [{"d": 4}]


def test_the_agenda_goes_on_with_what_has_begun():
    plan = Plan.of(["gla", "lstm"], ["echo"], "10s", seeds=2)
    agenda = Agenda(plan, [])
    first = agenda.following()
    assert first == {"kind": "sweep", "layer": "gla", "task": "echo"}
    found = {"model": "gla", "width": 64, "lr": 1e-3, "steps": 5, "seed_seconds": 1.0}
    agenda.note(first | found)
    assert [(w["kind"], w["seed"]) for w in (agenda.following(), agenda.following())] == [("run", 0), ("run", 1)]
    assert [agenda.following()["kind"] for _ in range(3)] == ["sweep", "speed", "speed"]
    assert agenda.following() is None
    assert agenda.total == 2 + 4 + 2


def test_the_agenda_does_nothing_twice_and_tries_failures_again():
    plan = Plan.of(["gla", "lstm"], ["echo"], "10s", seeds=2)
    agenda = Agenda(plan, records(plan, missing=("lstm",)))
    left = iter(agenda.following, None)
    assert [(w["kind"], w["layer"], w["seed"]) for w in left] == [("run", "lstm", 0), ("run", "lstm", 1)]


# ------------------------------------------------------------------------------------------------- whole comparisons


def test_a_comparison_resumes_where_it_was_cut(tmp_path, here):
    plan = Plan.of(["min_gru", "lstm"], ["echo"], "12", seeds=2, width=16, depth=1)
    folder, whole = compare(plan, tmp_path / "a")
    assert [r["kind"] for r in whole].count("run") == 4
    lines = folder.store.path.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "b"
    Folder.open(cut, plan, "")
    (cut / "results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    _, again = compare(plan, cut)
    assert (cut / "results.jsonl").read_bytes().startswith(b"".join(lines[:2]))

    def scores(found):
        return {(r["layer"], r["seed"]): r["scores"] for r in found if r["kind"] == "run"}

    assert scores(again) == scores(whole)
    assert len(again) == len(whole)


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_two_do_not_work_in_one_folder(tmp_path, here):
    plan = Plan.of(["min_gru"], ["echo"], "4", seeds=1, width=16, depth=1)
    folder = Folder.open(tmp_path / "a", plan, "")
    with folder.alone(), pytest.raises(InputError, match="Another process is at work in"):
        compare(plan, tmp_path / "a")
    compare(plan, tmp_path / "a")


def test_seconds_are_kept(tmp_path, here):
    plan = Plan.of(["min_gru"], ["echo"], "1s", seeds=2, width=16, depth=1)
    _, found = compare(plan, tmp_path / "a")
    sweep = next(r for r in found if r["kind"] == "sweep")
    assert sweep["steps"] == int(sweep["seed_seconds"] / sweep["step_seconds"])
    assert sweep["lr"] in ECHO.training.learning_rates
    assert all(r["cut"] or r["steps"] == sweep["steps"] for r in found if r["kind"] == "run")


def test_a_layer_that_fails_does_not_stop_the_others(tmp_path, here):
    plan = Plan(("attention:heads=3", "min_gru"), ("echo",), "4 steps", seeds=1, width=16, depth=1)
    _, found = compare(plan, tmp_path / "a")
    assert {r["layer"] for r in found if r["kind"] == "run"} == {"min_gru"}
    assert any("does not divide" in r["why"] for r in found if r["kind"] == "failure")


def test_where_every_run_fails_the_command_has_failed(tmp_path, here, capsys, monkeypatch):
    def lost(work, tick):
        return {"kind": "failure", "stage": work["kind"], "layer": "min_gru", "task": "echo", "why": "the worker died"}

    monkeypatch.setattr(running, "perform", lost)
    argv = ["compare", "--layers", "min_gru", "--task", "echo", "--budget", "4", "--seeds", "1"]
    monkeypatch.setattr("ritornello.cli.compare._told", lambda outcome: "")
    with pytest.raises(SystemExit) as left:
        main([*argv, "--out", str(tmp_path / "a")])
    assert left.value.code == 1
    assert "No run was finished" in capsys.readouterr().err
    assert "the worker died" in (tmp_path / "a" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("budget", "told"), [("1e-9s", "its scores"), ("1e-3FLOP", "one step of training")])
def test_a_budget_too_small_for_a_step(tmp_path, here, budget, told, capsys):
    argv = ["compare", "--layers", "min_gru", "--task", "echo", "--width", "16", "--depth", "1", "--budget", budget]
    assert main([*argv, "--out", str(tmp_path / "a")]) == 2
    assert f"too little for {told}" in capsys.readouterr().err


def test_the_command_line(tmp_path, here, capsys):
    argv = ["compare", "--layers", "min_gru", "--task", "echo", "--seeds", "2", "--width", "16", "--depth", "1"]
    out = ["--out", str(tmp_path / "a")]
    assert main([*argv, "--budget", "4", *out]) == 0
    printed = capsys.readouterr().out
    assert "min_gru, echo, seed 1: 6: " in printed
    assert "[4/4] min_gru, speed" in printed
    assert {"report.html", "report.md", "scores.csv"} <= set(os.listdir(tmp_path / "a"))
    assert main([*argv, "--budget", "4", *out]) == 0
    assert "seed" not in capsys.readouterr().out, "nothing is done twice"
    assert main([*argv, "--budget", "5", *out]) == 2
    assert "holds another comparison: budget 4 steps, not 5 steps" in capsys.readouterr().err
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    assert main([*argv, "--out", str(tmp_path / "b")]) == 2
    assert "holds no comparison" in capsys.readouterr().err
    (tmp_path / "a" / "comparison.json").write_text("{}")
    assert main([*argv, "--budget", "4", *out]) == 2
    assert "is no plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--layers", "lsmt"], "'lstm'"),
        (["--task", "parrity"], "'parity'"),
        (["--jobs", "0"], "`jobs` is 0"),
        (["--budget", "soon"], "`budget` is 'soon'"),
        (["--equal", "size"], "`equal` is 'size'"),
    ],
)
def test_mistakes(argv, told, tmp_path, capsys):
    assert main(["compare", *argv, "--out", str(tmp_path / "a")]) == 2
    sentence = capsys.readouterr().err
    assert told in sentence
    assert "Traceback" not in sentence
    assert not (tmp_path / "a").exists()


# ---------------------------------------------------------------------------------------------------------- processes


def act(work, tick):
    """What the workers of the test below do."""
    if work["do"] == "die":
        os._exit(7)
    if work["do"] == "fail":
        raise ValueError("no luck")
    if work["do"] == "refuse":
        raise InputError("not so")
    if work["do"] == "sleep":
        Path(work["file"]).write_text(str(os.getpid()))
        time.sleep(2 * PATIENCE)
    tick(0.5)
    return work["do"], torch.get_num_threads()


@pytest.mark.slow
def test_a_worker_that_dies_is_recorded_and_the_rest_goes_on():
    todo = [{"do": name} for name in ("one", "die", "fail", "refuse", "two")]
    with Pool(act, 1, 1) as pool:
        outcomes = list(pool.run(lambda: todo.pop(0) if todo else None))
    told = {o.work["do"]: o for o in outcomes if o.progress is None}
    assert told["one"].result == ("one", 1)
    assert told["two"].result == ("two", 1), "after all that went wrong"
    assert told["die"].failure == "the worker ended with code 7"
    assert told["fail"].failure is not None
    assert told["fail"].failure.startswith("ValueError: no luck (")
    assert (told["refuse"].failure, told["refuse"].refused, told["fail"].refused) == ("not so", True, False)
    assert [o.progress for o in outcomes if o.progress is not None] == [0.5, 0.5]


ORPHAN = """
import sys
from ritornello.lab.compare.pool import Pool
from tests.lab.test_compare import act
if __name__ == "__main__":
    with Pool(act, 1, 1) as pool:
        list(pool.run(lambda: {"do": "sleep", "file": sys.argv[1]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_worker_ends_with_its_parent(tmp_path):
    script, file = tmp_path / "orphan.py", tmp_path / "pid"
    script.write_text(ORPHAN)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, script, file], stdout=subprocess.PIPE, env=env)
    end = time.monotonic() + PATIENCE
    while not file.exists() or not file.read_text():
        assert parent.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.kill()
    parent.communicate(timeout=PATIENCE)  # the end of an output that the worker has open too


ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
"""Seconds until a process is given up: other work may have the cores."""


def start(*argv: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "ritornello", "compare", *map(str, argv)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_comparison_loses_no_finished_run(tmp_path):
    out = tmp_path / "out"
    results = out / "results.jsonl"
    argv = ["--layers", "min_gru", "--task", "parity", "--budget", 4, "--seeds", 4, "--width", 16, "--depth", 1]
    argv += ["--jobs", 1, "--out", out]
    killed = start(*argv)
    end = time.monotonic() + PATIENCE
    while not results.exists() or b'"run"' not in results.read_bytes():
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    whole = results.read_bytes()
    finished = whole[: whole.rfind(b"\n") + 1]
    assert finished.count(b'"kind": "run"') < 4, "it was killed too late to tell anything"
    process = start(*argv)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert results.read_bytes().startswith(finished)
    runs = [r for r in Store(results).read() if r["kind"] == "run"]
    assert sorted((r["layer"], r["seed"]) for r in runs) == [("min_gru", seed) for seed in range(4)]
    assert (out / "report.html").exists()
