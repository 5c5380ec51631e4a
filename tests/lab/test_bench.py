"""The benchmark: what it refuses to time, what its figures mean, and what it tells."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from ritornello.cli import main
from ritornello.lab.bench import (
    ROWS,
    Case,
    Ceilings,
    Comparison,
    Options,
    Result,
    Side,
    Work,
    choose,
    draw,
    measure,
    methods,
)
from ritornello.lab.bench import case as cases
from ritornello.lab.bench import run as running
from ritornello.lab.bench.case import BOTH, FORWARD, WrongNumbersError, compare, verify
from ritornello.lab.bench.memory import peak_share
from ritornello.lab.bench.report import as_value, drift_lines, grid_lines, lines
from ritornello.lab.bench.run import Measured, measure_here, run_case
from ritornello.lab.bench.timing import Budget, Timing, in_turns, interleave
from ritornello.method import Auto, Newton, Sequential

TABLE, QUICK = Options(), Options(quick=True)
BRIEF = Budget(0.01, 2, 3)
CEILINGS = Ceilings(matmul=2e11, matmul_allocated=1e11, matmul_bf16=1e12, copy=2e10)
SMALL = {"B": 1, "T": 20, "H": 2, "K": 8, "V": 8, "d": 16, "N": 4, "short": 10}


# ------------------------------------------------------------------------------------------------------------ numbers


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, *grads):
        return 3 * grads[0]


def side(call) -> Side:
    x = torch.linspace(-1, 1, 7, requires_grad=True)
    return Side(lambda: call(x), [x], torch.ones(7))


@pytest.mark.parametrize(
    ("call", "what"),
    [(lambda x: 2.01 * x, "output"), (_WrongGradient.apply, "gradient 1"), (lambda x: x / 0 * 0, "output")],
    ids=["output", "gradient", "nan"],
)
def test_wrong_numbers_are_not_timed(call, what):
    calls = []
    ours, peer = side(call), side(lambda x: 2 * x)
    passes = {FORWARD: lambda: calls.append(1)}
    result = run_case("row", {}, Case(passes, peer.passes(), compare(ours, peer, 1e-3)), BRIEF)
    assert result.wrong is not None and what in result.wrong
    assert not result.passes and not calls


def test_right_numbers_are_timed_with_their_error():
    ours, peer = side(lambda x: x + x), side(lambda x: 2 * x)
    result = run_case("row", {}, Case(ours.passes(), peer.passes(), compare(ours, peer, 1e-3)), BRIEF)
    assert result.wrong is None and result.error == 0
    assert set(result.passes) == {FORWARD, BOTH}
    assert all(len(m.timing.ours) == len(m.timing.peer) >= 2 for m in result.passes.values())


def test_a_wrong_kernel_is_refused_against_the_reference_backend(monkeypatch):
    from ritornello.kernels.native import para_gru

    row, sizes = ROWS["para_gru"], {"B": 1, "T": 12, "d": 16}
    assert measure_here(row, sizes, QUICK).wrong is None
    right = para_gru.forward

    def wrong(*arguments, **options):
        outputs, trace = right(*arguments, **options)
        return (outputs[0] * 1.01, *outputs[1:]), trace

    monkeypatch.setattr(para_gru, "forward", wrong)
    result = measure_here(row, sizes, replace(QUICK, backend="native"))
    assert result.wrong is not None and not result.passes


def test_another_shape_is_wrong():
    with pytest.raises(WrongNumbersError, match="output is off by inf"):
        verify([Comparison("output", torch.zeros(3, 1), torch.zeros(1, 3), 1.0)])


@pytest.mark.parametrize("name", ROWS)
def test_numbers_of_every_row(name):
    row = ROWS[name]
    torch.manual_seed(0)
    case = row.make({size: SMALL[size] for size in row.sizes}, False)
    with cases.backend(row.backend) if row.backend else nullcontext():
        assert verify(case.check()) < 1e-2
    assert set(row.targets) <= set(case.ours), "a target of a pass that is not measured"
    assert set(row.shares) <= {which for which, work in case.work.items() if work.unit != "token"}


# ------------------------------------------------------------------------------------------------------------- figures


def test_ratio_is_the_median_over_rounds_and_not_of_medians():
    timing = Timing(ours=(2.0, 1.0, 10.0), peer=(4.0, 7.0, 50.0))
    assert timing.ratio == 5.0  # of 2, 7 and 5
    assert timing.best_ratio == 4.0
    assert Timing(ours=(1.0,)).ratio is None


def test_rounds_alternate():
    slow: list[str] = []

    def call(name: str) -> None:
        slow.append(name)
        time.sleep(0.05)  # beyond what is repeated within a sample

    timing = interleave(lambda: call("o"), lambda: call("p"), Budget(10.0, 2, 4))
    assert slow == ["o", "p", *"op", *"po", *"op", *"po"]  # the warm-up of each, then four rounds
    assert len(timing.ours) == 4


def test_more_than_two_run_in_turns():
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        time.sleep(0.05)

    times = in_turns([lambda n=n: call(n) for n in "abc"], Budget(10.0, 3, 3))
    assert order == [*"abc", *"abc", *"cba", *"abc"]
    assert [len(t) for t in times] == [3, 3, 3]


@pytest.mark.parametrize(
    ("rounds", "elapsed", "spent"),
    [(0, 99.0, False), (1, 11.0, False), (1, 12.0, True), (5, 2.0, False), (5, 3.0, True), (60, 0.1, True)],
)
def test_budget(rounds, elapsed, spent):
    assert Budget(3.0, 5, 60).spent(rounds, elapsed) is spent


def value_of(row_name: str, seconds: float, peer: float | None, work: Work, options: Options = TABLE):
    row = ROWS[row_name]
    timing = Timing((seconds,), () if peer is None else (peer,))
    result = Result(row.name, row.sizes, {FORWARD: Measured(timing, work)}, 1e-7)
    return as_value(row, result, CEILINGS, options)


def test_shares_and_targets():
    value = value_of("gated_delta_rule", 0.01, 0.09, Work(1e9, "FLOP"))["passes"][FORWARD]
    assert value["ours_ms"] == 10 and value["peer_ms"] == 90 and value["ratio"] == pytest.approx(9)
    assert value["rate"] == 1e11 and value["unit"] == "FLOP/s" and value["share"] == 0.5
    assert value["target"] == 8 and value["met"] is True and value["share_met"] is True
    missed = value_of("gated_delta_rule", 0.02, 0.09, Work(1e9, "FLOP"))["passes"][FORWARD]
    assert missed["met"] is False and missed["share_met"] is False
    copied = value_of("diagonal_scan", 0.01, None, Work(1e8, "B"))["passes"][FORWARD]
    assert copied["unit"] == "B/s" and copied["share"] == 0.5 and copied["ratio"] is None and copied["met"] is None
    tokens = value_of("decode", 0.016, 0.08, Work(16, "token"))["passes"][FORWARD]
    assert tokens["rate"] == 1000 and tokens["share"] is None


def test_quick_runs_and_other_sizes_are_not_judged():
    quick = value_of("gated_delta_rule", 0.01, 0.09, Work(1e9, "FLOP"), QUICK)["passes"][FORWARD]
    assert quick["met"] is None and quick["share_met"] is None
    row = ROWS["lstm"]
    other = Result(row.name, row.sizes | {"T": 7}, {FORWARD: Measured(Timing((1.0,), (1.0,)))})
    assert as_value(row, other, CEILINGS, Options())["passes"][FORWARD]["met"] is None


def test_lines_say_what_is_not_met():
    (heading, line) = lines(value_of("gated_delta_rule", 0.02, 0.09, Work(1e9, "FLOP")))
    assert heading.startswith("gated_delta_rule  B1 T2048 H8 K64 V64, beside transformers'")
    assert "ratio   4.50" in line and "≥ 8 NOT MET" in line and "50.0 GFLOP/s, 25% of the ceiling" in line
    wrong = as_value(ROWS["lstm"], Result("lstm", {}, wrong="output is off"), CEILINGS, QUICK)
    assert lines(wrong)[-1] == "  WRONG, and not timed: output is off"


def test_a_machine_that_was_not_quiet_is_told():
    assert drift_lines(CEILINGS, replace(CEILINGS, copy=1.9e10)) == []
    (line,) = drift_lines(CEILINGS, replace(CEILINGS, copy=1e10))
    assert "not quiet: copy changed by more than 25%" in line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no other system tells the peak of a part of a run")
def test_peak_memory_counts_what_is_freed_in_between():
    size = 4 << 20
    returned = peak_share(lambda: (torch.ones(size), torch.ones(size)))
    in_between = peak_share(lambda: (torch.ones(4 * size)[:size].clone(), torch.ones(size)))
    assert returned == pytest.approx(1, abs=0.2) and in_between == pytest.approx(2.5, abs=0.2)
    assert peak_share(lambda: (torch.ones(1000),)) is None  # too small to tell
    assert peak_share(lambda: None) is None


def test_memory_is_judged():
    row = ROWS["gated_delta_rule"]
    little, much = (as_value(row, Result(row.name, row.sizes, memory=m), CEILINGS, TABLE) for m in (1.5, 3.5))
    assert little["memory_met"] is True and lines(little)[-1].endswith("1.50 × inputs and outputs  ≤ 3 met")
    assert much["memory_met"] is False
    other = Result(row.name, row.sizes | {"T": 7}, memory=9.0)
    assert as_value(row, other, CEILINGS, TABLE)["memory_met"] is None


def test_grid_tells_the_worst():
    values = [
        as_value(ROWS["lstm"], Result("lstm", {"B": b}, {FORWARD: Measured(Timing((1.0,), (p,)))}), CEILINGS, QUICK)
        for b, p in ((1, 3.0), (2, 0.5), (4, 2.0))
    ]
    (line,) = grid_lines(values)
    assert "of 3 random shapes 0.50, at B2" in line


def test_random_shapes_are_the_same_every_time():
    for row in ROWS.values():
        assert draw(row, 3) == draw(row, 3)
        assert all(set(sizes) == set(row.sizes) for sizes in draw(row, 20))


# --------------------------------------------------------------------------------------------------------------- peers


def test_a_missing_peer_is_told_and_ours_measured_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "minGRU_pytorch", None)
    result = measure(ROWS["min_gru"], {"B": 1, "T": 16, "d": 8}, Options(peers=True, quick=True))
    assert result.note is not None and "minGRU-pytorch is not there" in result.note
    assert "pip install 'ritornello[peers]'" in result.note
    assert result.passes[FORWARD].timing.ours and not result.passes[FORWARD].timing.peer


def test_a_backend_without_the_op_is_told():
    result = measure(ROWS["gru"], {"B": 1, "T": 8, "d": 8}, replace(QUICK, backend="torch"))
    assert result.note is not None and "'torch' cannot run this call of gru" in result.note
    assert not result.passes and result.wrong is None


def test_a_peer_that_hangs_is_stopped():
    row = replace(ROWS["gru"], limit=0.01)
    result = measure(row, {"B": 1, "T": 8, "d": 8}, Options(peers=True, quick=True))
    assert result.note == "stopped after 0.01 s with its peer; ours is measured alone"
    assert result.passes[BOTH].timing.ours and not result.passes[BOTH].timing.peer


@pytest.mark.slow
def test_a_row_in_a_process_of_its_own():
    result = measure(ROWS["gru"], {"B": 1, "T": 8, "d": 8}, Options(peers=True, quick=True))
    assert result.note is None and result.wrong is None
    assert result.passes[BOTH].timing.peer


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def light(monkeypatch):
    """Ceilings and sizes that take no time."""
    monkeypatch.setattr("ritornello.lab.bench.measure_ceilings", lambda budget: CEILINGS)
    small = replace(ROWS["para_gru"], quick={"B": 1, "T": 16, "d": 16})
    monkeypatch.setitem(running.ROWS, "para_gru", small)


def test_json(light, tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["bench", "--quick", "--peers", "--op", "para_gru", "--grid", "1", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "para_gru  B1 T16 d16, beside an eager loop over the step" in printed
    assert "worst ratio of 1 random shapes" in printed
    found = json.loads(path.read_text())
    assert set(found) == {"schema", "machine", "versions", "options", "ceilings", "ceilings_after", "rows", "grid"}
    assert found["schema"] == 1
    assert found["machine"]["device"] == "cpu" and found["machine"]["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__ and "transformers" in found["versions"]
    assert set(found["ceilings"]) == {"matmul", "matmul_allocated", "matmul_bf16", "copy"}
    (row,), (drawn,) = found["rows"], found["grid"]
    assert row["sizes"] == {"B": 1, "T": 16, "d": 16} and row["wrong"] is None and row["error"] < 1e-3
    assert drawn["row"] == "para_gru" and drawn["sizes"] != row["sizes"]
    for name, target in ((FORWARD, 10), (BOTH, 10)):
        one = row["passes"][name]
        assert one["ratio"] > 0 and one["best_ratio"] == pytest.approx(one["peer_best_ms"] / one["ours_best_ms"])
        assert one["target"] == target and one["met"] is None and one["unit"] == "B/s" and one["rounds"] >= 1


def test_a_row_of_fixed_sizes_says_that_there_is_no_grid(light, monkeypatch, capsys):
    monkeypatch.setitem(running.ROWS, "para_gru", replace(running.ROWS["para_gru"], draw=None))
    assert main(["bench", "--quick", "--op", "para_gru", "--grid", "1"]) == 0
    assert "no random shapes: its sizes are fixed" in capsys.readouterr().out


def test_wrong_numbers_are_our_failure(light, monkeypatch, capsys):
    bad = Case({FORWARD: lambda: None}, {}, lambda: [Comparison("output", torch.ones(1), torch.zeros(1), 1e-3)])
    monkeypatch.setitem(running.ROWS, "para_gru", replace(ROWS["para_gru"], make=lambda sizes, with_peer: bad))
    with pytest.raises(SystemExit) as exit:
        main(["bench", "--quick", "--op", "para_gru"])
    assert exit.value.code == 1
    assert "WRONG, and not timed: output is off by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--op", "gatd_delta_rule"], "There is no row or op"),
        (["--op", "lstn"], "'lstm'"),
        (["--backend", "cuda"], "There is no backend 'cuda'"),
        (["--grid", "-1"], "`grid` is -1"),
        (["--json", f"{__file__}/bench.json"], "which is a file"),
    ],
)
def test_mistakes(argv, told, capsys):
    assert main(["bench", *argv]) == 2
    sentence = capsys.readouterr().err
    assert "Traceback" not in sentence
    assert told.replace("There is no row or op", "The benchmark has no row or op") in sentence
    if "--op" in argv:
        assert "Did you mean" in sentence


def test_choice():
    assert [row.name for row in choose(["lstm"])] == ["lstm", "lstm_bf16"]
    assert "time_per_token" not in [row.name for row in choose([])]
    assert "time_per_token" in [row.name for row in choose([], long=True)]
    assert [row.name for row in choose(["time_per_token"])] == ["time_per_token"]


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    from ritornello.lab.bench.plot import draw_curve

    path = tmp_path / "curve.png"
    draw_curve([(256, 2.0, 1.0), (512, 2.0, 2.0)], path)
    assert path.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------------------- methods


def test_methods_are_compared_before_they_are_timed(monkeypatch):
    monkeypatch.setattr(methods, "CELLS", {"own": methods.MixingCell})
    monkeypatch.setattr(methods, "METHODS", {n: m for n, m in methods.METHODS.items() if n != "Compiled"})
    found = list(methods.measure_methods(((1, 70, 4),), rounds=1))
    assert [line.which for line in found] == ["forward", "forward + backward"]
    for line in found:
        assert set(line.seconds) == {"Sequential", "Newton", "Auto"} and 0 <= line.error < 1e-3
        heading, choice = methods.method_lines(line)
        assert heading.startswith("own  B1 T70 d4, forward") and f"Auto chose {line.chosen}" in choice
    wrong = Newton(on_failure="raise", max_iterations=1)
    monkeypatch.setattr(Newton, "_solve_cell", lambda *a: (torch.zeros(1, 70, 4), torch.zeros(1, 4)))
    monkeypatch.setattr(methods, "METHODS", {"Sequential": Sequential(), "Newton": wrong})
    with pytest.raises(WrongNumbersError):
        list(methods.measure_methods(((1, 70, 4),), rounds=1))


def test_the_methods_are_written_as_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(methods, "CELLS", {"own": methods.MixingCell})
    monkeypatch.setattr(methods, "METHODS", {"Sequential": Sequential(), "Auto": Auto()})
    path = tmp_path / "new" / "methods.json"
    assert main(["bench", "--methods", "--quick", "--json", str(path)]) == 0
    assert f"written: {path}" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert set(found) == {"schema", "machine", "versions", "options", "methods"} and found["schema"] == 1
    assert [line["pass"] for line in found["methods"]] == ["forward", "forward + backward"]
    for line in found["methods"]:
        assert line["cell"] == "own" and line["sizes"] == {"B": 1, "T": 96, "d": 16} and line["error"] < 1e-3
        assert set(line["milliseconds"]) == {"Sequential", "Auto"} and min(line["milliseconds"].values()) > 0


@pytest.mark.parametrize("more", [["--plot", "a.png"], ["--grid", "2"], ["--op", "lstm"], ["--peers"], ["--long"]])
def test_what_the_methods_have_no_use_for_is_refused(more, capsys):
    assert main(["bench", "--methods", "--quick", *more]) == 2
    assert f"`--methods` has no use for {more[0]}" in capsys.readouterr().err
