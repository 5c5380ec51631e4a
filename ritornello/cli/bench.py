"""``ritornello bench``: how fast it is here, beside other libraries."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ritornello.cli.outputs import demand_file
from ritornello.errors import BackendError, InputError, nearest
from ritornello.kernels.registry import BACKENDS

if TYPE_CHECKING:
    from ritornello.lab.bench import Ceilings, Options, Row

NAME = "bench"
HELP = "Measure ops, layers and models, beside other libraries if asked; numbers are checked before anything is timed."
EXAMPLES = """\
  ritornello bench --peers
  ritornello bench --peers --op lstm --op gru --grid 10
  ritornello bench --peers --long --json bench.json --plot bench.png
"""

GRID_SECONDS = 0.5
LENGTHS = [2**n for n in range(8, 15)]


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--op", action="append", default=[], metavar="NAME", help="a row or an op only; may be repeated"
    )
    options.add_argument(
        "--peers", action="store_true", help="the other libraries too: pip install 'ritornello[peers]'"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    options.add_argument("--plot", type=Path, metavar="FILE", help="a PNG of time per token against length")
    options.add_argument("--grid", type=int, default=0, metavar="N", help="also N random shapes a row; tells the worst")
    options.add_argument("--backend", metavar="NAME", help=f"that ours runs on: {', '.join(BACKENDS)}")
    options.add_argument("--long", action="store_true", help="also the time per token at 131,072 tokens")
    options.add_argument(
        "--methods", action="store_true", help="cells × sizes: Sequential, Compiled, Newton, Fused, Auto; to --json too"
    )
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it works; nothing is judged")


def run(arguments: argparse.Namespace) -> None:
    from ritornello.lab.bench import Options, choose, measure_ceilings
    from ritornello.lab.bench.plot import require_matplotlib
    from ritornello.lab.bench.report import ceiling_lines, document, drift_lines

    if arguments.methods:
        _methods(arguments)
        return
    rows = choose(arguments.op, arguments.long)
    if arguments.grid < 0:
        raise InputError(f"`grid` is {arguments.grid}; wanted a number of shapes, 0 or more.")
    if arguments.backend is not None and arguments.backend not in BACKENDS:
        raise BackendError(f"There is no backend {arguments.backend!r}. {nearest(arguments.backend, BACKENDS)}")
    for option in ("json", "plot"):
        if (path := getattr(arguments, option)) is not None:
            demand_file(path, f"--{option}")
            path.parent.mkdir(parents=True, exist_ok=True)
    if arguments.plot is not None:
        require_matplotlib()
    options = Options(arguments.peers, arguments.backend, arguments.quick)
    ceilings = measure_ceilings(options.budget)
    print(*ceiling_lines(ceilings), sep="\n", flush=True)
    values, grid = _rows(rows, options, ceilings, arguments.grid)
    after = measure_ceilings(options.budget)
    for line in drift_lines(ceilings, after):
        print(line)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document(values, grid, ceilings, after, options), indent=1) + "\n")
        print(f"written: {arguments.json}")
    if arguments.plot is not None:
        _plot(arguments.plot, options)
    _conclude(values, grid)


def _methods(arguments: argparse.Namespace) -> None:
    from ritornello.lab.bench.methods import SIZES, measure_methods, method_lines
    from ritornello.lab.bench.report import methods_document

    given = {
        "op": arguments.op, "peers": arguments.peers, "plot": arguments.plot, "grid": arguments.grid,
        "backend": arguments.backend, "long": arguments.long,
    }  # fmt: skip
    if unused := [f"--{name}" for name, value in given.items() if value]:
        raise InputError(
            f"`--methods` has no use for {', '.join(unused)}: it runs the same cells and sizes on the backend that is "
            "chosen for them, and draws nothing. It takes --json and --quick."
        )
    if arguments.json is not None:
        demand_file(arguments.json, "--json")
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    measured = []
    for line in measure_methods(((1, 96, 16),) if arguments.quick else SIZES, 1 if arguments.quick else 3):
        print(*method_lines(line), sep="\n", flush=True)
        measured.append(line)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(methods_document(measured, arguments.quick), indent=1) + "\n")
        print(f"written: {arguments.json}")


def _rows(
    rows: list[Row], options: Options, ceilings: Ceilings, count: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every row at its own sizes, then at random ones, told as they come."""
    from dataclasses import replace

    from ritornello.lab.bench import draw, measure
    from ritornello.lab.bench.report import as_value, grid_lines, lines

    values, grid = [], []
    for row in rows:
        values.append(as_value(row, measure(row, options.sizes(row), options), ceilings, options))
        print(*lines(values[-1]), sep="\n", flush=True)
        brief = replace(options, seconds=GRID_SECONDS)
        drawn = [as_value(row, measure(row, sizes, brief), ceilings, brief) for sizes in draw(row, count)]
        for line in grid_lines(drawn):
            print(line, flush=True)
        if count and not drawn:
            print("  no random shapes: its sizes are fixed", flush=True)
        grid += drawn
    return values, grid


def _plot(path: Path, options: Options) -> None:
    from ritornello.lab.bench.plot import draw_curve, per_token

    draw_curve(per_token(LENGTHS[:3] if options.quick else LENGTHS, options.budget), path)
    print(f"written: {path}")


def _conclude(values: list[dict[str, Any]], grid: list[dict[str, Any]]) -> None:
    """How many targets are met. Wrong numbers are our failure, exit code 1; a target that is missed is a figure."""
    from ritornello.lab.bench.report import checkpoint_mean

    judged = [p[key] for v in values for p in v["passes"].values() for key in ("met", "share_met")]
    judged += [v["memory_met"] for v in values]
    judged = [met for met in judged if met is not None]
    if judged:
        print(f"{sum(judged)} of {len(judged)} targets met")
    if (mean := checkpoint_mean(values)) is not None:
        print(f"checkpoints: {mean:.2f} times as fast as transformers in the geometric mean, wanted 4")
    if wrong := sum(v["wrong"] is not None for v in values + grid):
        print(f"{wrong} with wrong numbers, which were not timed")
        raise SystemExit(1)
