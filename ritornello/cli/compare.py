"""``ritornello compare``: which recurrence can do what, at equal cost, with a report to look at."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ritornello.errors import InputError

if TYPE_CHECKING:
    from ritornello.lab.compare.plan import Agenda
    from ritornello.lab.compare.pool import Outcome

NAME = "compare"
HELP = "Compare layers on tasks: each has the same budget, all of them one report. Run again, it goes on."
EXAMPLES = """\
  ritornello compare --layers lstm,gla,gated_delta_net --task parity,mqar --out compared
  ritornello compare --layers all --task mqar,parity,s3 --budget 20s --out compared
  ritornello compare --layers 'delta rule',mamba,mamba:negative_eigenvalues=true,gla+attention --task parity
"""


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--layers", default="all", metavar="A,B",
        help="names, families, or all; options as in delta_net:heads=2, a pattern of several as in gla+attention (all)",
    )  # fmt: skip
    options.add_argument("--task", "--tasks", dest="task", default="all", metavar="A,B", help="names, or all (all)")
    options.add_argument(
        "--budget", default="60s", metavar="X",
        help="of a layer on a task: 60s of this machine for sweep and seeds together; or for each seed 500 steps, or "
        "1e12FLOP (60s)",
    )  # fmt: skip
    options.add_argument("--equal", default="compute", metavar="WHAT", help="compute, parameters or state (compute)")
    options.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each layer on each task (3)")
    options.add_argument("--preset", default="small", metavar="NAME", help="sizes of the tasks: small or paper (small)")
    options.add_argument("--width", type=int, metavar="N", help="of the models (64; 128 with --preset paper)")
    options.add_argument("--depth", type=int, default=2, metavar="N", help="blocks of the models (2)")
    options.add_argument("--jobs", type=int, metavar="N", help="processes that share the cores (one for each)")
    options.add_argument("--out", type=Path, default=Path("compared"), metavar="DIR", help="the folder (compared)")


def run(arguments: argparse.Namespace) -> None:
    from ritornello.lab.compare import Plan, compare, default_workers
    from ritornello.lab.report import write_report

    if arguments.jobs is not None and arguments.jobs < 1:
        raise InputError(f"`jobs` is {arguments.jobs}; wanted 1 or more processes.")
    plan = Plan.of(
        arguments.layers.split(","), arguments.task.split(","), arguments.budget, equal=arguments.equal,
        seeds=arguments.seeds, preset=arguments.preset, width=arguments.width, depth=arguments.depth,
        workers=arguments.jobs or default_workers(),
    )  # fmt: skip
    command = "ritornello " + shlex.join(sys.argv[1:]) if len(sys.argv) > 1 else ""
    out = arguments.out
    with _progress() as watch:
        try:
            folder, records = compare(plan, out, command, watch)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Interrupted. What is finished is in {out}; run the same again to go on."
            ) from None
    for path in write_report(folder, records):
        print(f"written: {path}")
    if not any(record["kind"] == "run" for record in records):
        print("ritornello: No run was finished; the report tells why. Run the same again to try it.", file=sys.stderr)
        raise SystemExit(1)


def _progress():
    return _Bars() if sys.stderr.isatty() else _Lines()


class _Lines:
    """A line for every piece of work that is done."""

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, outcome: Outcome, agenda: Agenda) -> None:
        if outcome.progress is None:
            print(f"[{agenda.done}/{agenda.total}] {_told(outcome)}", flush=True)


class _Bars:
    """A bar for the whole and one for every piece of work under way."""

    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")
        self.bars = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self.bars.start()
        self.whole = self.bars.add_task("all", total=None)
        self.parts: dict[str, object] = {}
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def __call__(self, outcome: Outcome, agenda: Agenda) -> None:
        self.bars.update(self.whole, total=agenda.total, completed=agenda.done)
        name = _name(outcome)
        if name not in self.parts:
            self.parts[name] = self.bars.add_task(name, total=1.0)
        if outcome.progress is not None:
            self.bars.update(self.parts[name], completed=outcome.progress)  # type: ignore[arg-type]
            return
        self.bars.remove_task(self.parts.pop(name))  # type: ignore[arg-type]
        self.bars.console.print(_told(outcome), highlight=False, markup=False)


def _name(outcome: Outcome) -> str:
    """A piece of work: ``gla, parity, seed 1``."""
    work = outcome.work
    part = f"seed {work['seed']}" if work["kind"] == "run" else work["kind"]
    return ", ".join(filter(None, (work["layer"], work.get("task"), part)))


def _told(outcome: Outcome) -> str:
    """A piece of work that is done, in a line."""
    name, result = _name(outcome), outcome.result
    if outcome.failure is not None:
        return f"{name}: FAILED, {outcome.failure}"
    if result["kind"] == "run":
        scores = "  ".join(f"{length}: {score:.3f}" for length, score in result["scores"].items())
        return f"{name}: {scores}  ({result['steps']} steps, {result['seconds']:.0f} s)"
    if result["kind"] == "sweep":
        return f"{name}: rate {result['lr']:g}, {result['steps']} steps, {result['parameters']:,} parameters"
    return f"{name}: {result['tokens_per_second'][-1]:,.0f} tokens a second"
