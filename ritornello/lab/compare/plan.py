"""What is to be compared, as a value that a folder keeps; and which piece of work comes next."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ritornello import tasks
from ritornello.errors import InputError, nearest
from ritornello.lab.compare import contender
from ritornello.lab.compare.budget import Budget
from ritornello.lab.compare.contender import EQUAL
from ritornello.tasks import Task

__all__ = ["Agenda", "Plan", "choose_tasks"]

Record = dict[str, Any]
Work = dict[str, Any]

WIDTH = {"small": 64, "paper": 128}
DEPTH = 2


@dataclass(frozen=True)
class Plan:
    """A comparison: every layer on every task, each with the same budget, for some seeds.

    Args:
        layers: contenders, as `contender.choose` gives them.
        tasks: names.
        budget: as `Budget.parse` reads it.
        equal: what all models have alike: ``"compute"`` (their width is the same, and the seconds or FLOP of their
            budget), ``"parameters"`` or ``"state"`` (their width is chosen for it).
        seeds: how many runs each layer has on each task.
        preset: of the tasks.
        width: of the models; for equal parameters or state, of the reference whose size all others have.
        depth: blocks of the models.
        workers: processes; a budget in seconds is of all of them together.
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    budget: str
    equal: str = "compute"
    seeds: int = 3
    preset: str = "small"
    width: int = WIDTH["small"]
    depth: int = DEPTH
    workers: int = 1

    @staticmethod
    def of(layers: Iterable[str], names: Iterable[str], budget: str, **options: Any) -> Plan:
        """A plan from what a person writes: ``all``, families, patterns.

        Raises:
            InputError: an unknown layer, task or option, or a budget too small for a step.
        """
        preset = options.get("preset", "small")
        if preset not in WIDTH:
            raise InputError(f"`preset` is {preset!r}. {nearest(str(preset), WIDTH)}")
        if options.get("equal", "compute") not in EQUAL:
            raise InputError(f"`equal` is {options['equal']!r}. {nearest(str(options['equal']), EQUAL)}")
        for name in ("seeds", "width", "depth", "workers"):
            if (value := options.get(name)) is not None and value < 1:
                raise InputError(f"`{name}` is {value}; wanted 1 or more.")
        options["width"] = options.get("width") or WIDTH[preset]
        chosen = tuple(contender.choose(layers)), tuple(choose_tasks(names))
        for label in chosen[0]:
            if ":" in label:  # whatever else fails, fails when its turn comes, and the others go on
                contender.check(label, options["width"])
        return Plan(*chosen, str(Budget.parse(budget)), **options)

    def task(self, name: str) -> Task:
        return tasks.find(name).preset(self.preset)

    def to_dict(self) -> Record:
        return json.loads(json.dumps(asdict(self)))

    @staticmethod
    def from_dict(values: Record) -> Plan:
        known: Record = {field.name: values[field.name] for field in fields(Plan)}
        known["layers"], known["tasks"] = tuple(known["layers"]), tuple(known["tasks"])
        return Plan(**known)

    def difference(self, other: Plan) -> str | None:
        """The first thing in which two plans differ, in words; None where they are the same comparison."""
        for name, mine in self.to_dict().items():
            if mine != (theirs := other.to_dict()[name]):
                return f"{name} {_words(theirs)}, not {_words(mine)}"
        return None


def _words(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def choose_tasks(words: Iterable[str]) -> list[str]:
    """The names of the tasks that are meant; ``all`` of them.

    Raises:
        InputError: an unknown task; the nearest are offered.
    """
    found: list[str] = []
    for word in filter(None, (w.strip() for w in words)):
        found += tasks.catalogue() if word == "all" else [tasks.find(word).name]
    if not found:
        raise InputError("No tasks were given. Name some, e.g. --task mqar,parity, or all.")
    return list(dict.fromkeys(found))


class Agenda:
    """The pieces of work that a plan still needs, in the order in which they are best done.

    For each layer and task a sweep finds sizes, learning rate and how many steps the budget allows; then come its
    seeds. A cell that has begun goes on before another begins. The speeds come last. What a store holds already is
    not done again; failures are tried again.
    """

    def __init__(self, plan: Plan, records: Iterable[Record]):
        self.plan = plan
        self._sweeps = {(t, c): {"kind": "sweep", "layer": c, "task": t} for t in plan.tasks for c in plan.layers}
        self._speeds = {c: {"kind": "speed", "layer": c} for c in plan.layers}
        self._seeds: list[Work] = []
        self.total = len(self._sweeps) * (1 + plan.seeds) + len(self._speeds)
        self.done = 0
        finished = set()
        for record in records:
            self.note(record)
            if record["kind"] == "run":
                finished.add((record["task"], record["layer"], record["seed"]))
        self._seeds = [w for w in self._seeds if (w["task"], w["layer"], w["seed"]) not in finished]

    def note(self, record: Record) -> None:
        """A piece of work is done: what it makes possible is put on the list."""
        if record["kind"] == "failure":
            return
        self.done += 1
        if record["kind"] == "speed":
            self._speeds.pop(record["layer"], None)
        elif record["kind"] == "sweep":
            self._sweeps.pop((record["task"], record["layer"]), None)
            cell = {n: record[n] for n in ("layer", "task", "model", "width", "lr", "steps", "seed_seconds")}
            self._seeds += [{"kind": "run", "seed": seed} | cell for seed in range(self.plan.seeds)]

    def following(self) -> Work | None:
        """The next piece of work, taken off the list; None where nothing can begin now."""
        if self._seeds:
            return self._seeds.pop(0)
        remaining: dict[Any, Work] = self._sweeps or self._speeds
        return remaining.pop(next(iter(remaining))) if remaining else None
