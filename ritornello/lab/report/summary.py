"""The records of a comparison, brought together: one value for each layer and task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ritornello.lab.compare.contender import family, title
from ritornello.lab.compare.means import Mean, mean_of
from ritornello.lab.compare.plan import Plan
from ritornello.tasks import Figure, Task

__all__ = ["Cell", "Summary"]

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """What one layer did on one task, over its seeds.

    Args:
        curve: length → score.
        sweep: the record of its sizes and learning rate.
        runs: the records of its seeds.
    """

    layer: str
    task: Task
    curve: dict[int, Mean]
    sweep: Record
    runs: tuple[Record, ...]

    @property
    def trained(self) -> Mean:
        """The score at the shortest reported length, that of the training."""
        return self.curve[min(self.curve)]

    @property
    def longest(self) -> Mean:
        return self.curve[max(self.curve)]

    def scaled(self, value: float) -> float:
        """A score from chance, 0, to the best possible, 1."""
        return min(1.0, max(0.0, self.task.scaled(value)))

    def interval(self, mean: Mean) -> tuple[float, float] | None:
        """The 95 % interval of a mean, within what a score can be."""
        return mean.interval(0.0, 1.0 if self.task.about.metric == "accuracy" else float("inf"))

    def losses(self) -> list[tuple[float, float]]:
        """(seconds, loss): the learning curves of the seeds, averaged point by point."""
        curves = [run["curve"] for run in self.runs]
        return [(fmean(p[1] for p in at), fmean(p[2] for p in at)) for at in zip(*curves, strict=False)]


class Summary:
    """All that a report tells, from a plan and its records."""

    def __init__(self, plan: Plan, records: Iterable[Record]):
        self.plan = plan
        self.tasks = {name: plan.task(name) for name in plan.tasks}
        records = list(records)
        runs: dict[tuple[str, str], dict[int, Record]] = {}
        for r in (r for r in records if r["kind"] == "run"):
            runs.setdefault((r["layer"], r["task"]), {})[r["seed"]] = r
        sweeps = {(r["layer"], r["task"]): r for r in records if r["kind"] == "sweep"}
        self.cells = {key: self._cell(key, sweeps[key], tuple(seeds.values())) for key, seeds in runs.items()}
        self.speeds = {r["layer"]: r for r in records if r["kind"] == "speed"}
        done = {(r["layer"], r.get("task"), r.get("seed"), r["kind"]) for r in records}
        failed = {(r["layer"], r.get("task"), r.get("seed"), r["stage"]): r for r in records if r["kind"] == "failure"}
        self.failures = [r for key, r in failed.items() if key not in done]
        self.layers = sorted(plan.layers, key=lambda layer: -self.merit(layer))
        self.runs_done, self.runs_wanted = sum(map(len, runs.values())), plan.seeds * len(plan.tasks) * len(plan.layers)

    def _cell(self, key: tuple[str, str], sweep: Record, runs: tuple[Record, ...]) -> Cell:
        layer, name = key
        lengths = [length for length in runs[0]["scores"] if all(length in run["scores"] for run in runs)]
        curve = {int(length): mean_of([run["scores"][length] for run in runs]) for length in lengths}
        return Cell(layer, self.tasks[name], curve, sweep, runs)

    def of_task(self, task: str) -> list[Cell]:
        """The cells of a task, in the order of the layers."""
        return [cell for layer in self.layers if (cell := self.cells.get((layer, task)))]

    def merit(self, layer: str) -> float:
        """The mean over tasks and lengths of the scaled score, by which layers are ordered."""
        scores = [
            cell.scaled(mean.value) for (name, _), cell in self.cells.items() if name == layer
            for mean in cell.curve.values()
        ]  # fmt: skip
        return fmean(scores) if scores else -1.0

    @property
    def families(self) -> list[str]:
        """The families there are, those of most layers first; of as many, in the order of their best layer."""
        counts = Counter(family(layer) for layer in self.layers)
        return [name for name, _ in counts.most_common()]

    def leaders(self, task: str) -> list[Cell]:
        """The best at the training length, and those whose intervals reach it."""
        cells = self.of_task(task)
        if not cells:
            return []
        best = max(cells, key=lambda c: c.task.scaled(c.trained.value))
        return [best, *(c for c in cells if c is not best and _overlap(best, c))]


def _overlap(one: Cell, other: Cell) -> bool:
    first, second = one.interval(one.trained), other.interval(other.trained)
    if first is None or second is None:
        return one.trained.value == other.trained.value
    return first[0] <= second[1] and second[0] <= first[1]


def published(task: Task, layer: str) -> Figure | None:
    """The published figure for a contender, where there is one."""
    return task.published.get(title(layer).replace(" ±", ", signed"))
