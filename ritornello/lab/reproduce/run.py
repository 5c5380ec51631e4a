"""Running claims: their trainings in the pool's processes, kept line by line, judged when they are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ritornello import tasks
from ritornello.lab.compare.contender import build
from ritornello.lab.compare.pool import Outcome, Pool
from ritornello.lab.compare.run import default_workers
from ritornello.lab.compare.store import Store
from ritornello.lab.compare.trial import Learner, Limit, evaluate, train
from ritornello.lab.reproduce import min_gru
from ritornello.lab.reproduce.claim import OPTIONAL, Claim, Finding
from ritornello.lab.reproduce.min_gru import MinGRUClaim
from ritornello.lab.reproduce.passing import StatePassing
from ritornello.models import SequenceModel
from ritornello.tasks import Task

__all__ = ["perform", "reproduce"]

Record = dict[str, Any]
Watch = Callable[[Outcome, int, int], None]


def perform(work: Record, tick: Callable[[float], None]) -> Record:
    """A run of a claim: its work, with what came out."""
    if work["kind"] != "learn":
        return min_gru.perform(work, tick)
    task = tasks.find(work["task"]).preset("small", **work["fields"])
    torch.manual_seed(work["seed"])
    model = build(work["layer"], task, work["width"], work["depth"])
    learner = (StatePassing if work.get("passing") else Learner)(model, task, work["lr"], work["seed"])
    train(learner, Limit(work["steps"]), tick)
    return work | _scores(model, task, work)


def _scores(model: SequenceModel, task: Task, work: Record) -> Record:
    """The score from chance, 0, to the best possible, 1; or the part of it that is left of that at `kept_from`."""
    raw = evaluate(model, task, {work["length"], work.get("kept_from", work["length"])})
    scaled = {length: min(1.0, max(0.0, task.scaled(score))) for length, score in raw.items()}
    found = {"score": scaled[work["length"]], "raw": raw[work["length"]]}
    if "kept_from" not in work:
        return found
    before = scaled[work["kept_from"]]
    return found | {"score": found["score"] / before if before else 0.0, "before": raw[work["kept_from"]]}


def reproduce(
    claims: Sequence[Claim | MinGRUClaim],
    seeds: int = 3,
    workers: int | None = None,
    out: str | Path | None = None,
    watch: Watch = lambda outcome, done, total: None,
) -> Iterator[Finding]:
    """The findings of some claims, in their order, each as soon as its runs are done.

    Args:
        claims: as `choose` gives them.
        seeds: runs of each contender with each learning rate.
        workers: processes; one for each core where None.
        out: a file of JSON lines that keeps every run; those in it already are not done again.
        watch: hears of every run, and how many of how many are done.
    """
    store = Store(Path(out)) if out is not None else None
    kept = store.read() if store is not None else []
    if store is not None:
        store.prepare()
    workers = workers or default_workers()
    with Pool(perform, workers, threads=1) as pool:  # small models: two threads wait for each other
        for claim in claims:
            wanted = claim.work(seeds)
            done = [next((r for r in kept if _is(r, work)), None) for work in wanted]
            results = [r | work for r, work in zip(done, wanted, strict=True) if r is not None]
            todo = _todo([w for r, w in zip(done, wanted, strict=True) if r is None], claim, results, seeds)
            problems: list[str] = []
            for outcome in pool.run(lambda todo=todo: next(todo, None)):
                if outcome.failure is not None:
                    problems.append(f"{outcome.work.get('layer', outcome.work['kind'])}: {outcome.failure}")
                elif outcome.progress is None:
                    results.append(outcome.result)
                    kept.append(outcome.result)
                    if store is not None:
                        store.append(outcome.result)
                watch(outcome, len(results) + len(problems), len(wanted))
            yield claim.judge(results, list(dict.fromkeys(problems)))


def _todo(missing: list[Record], claim: Claim | MinGRUClaim, results: Sequence[Record], seeds: int) -> Iterator[Record]:
    """What is missing, as far as it can change what is found; `results` grows meanwhile."""
    for work in missing:
        if claim.needs(work, results, seeds):
            yield work


def _is(record: Record, work: Record) -> bool:
    """Whether a record is the outcome of this very work, whichever claim asked for it."""
    compared = {*work, *OPTIONAL} - {"claim", "trial", "loop"}
    return all(_plain(record.get(name)) == _plain(work.get(name)) for name in compared)


def _plain(value: Any) -> Any:
    """A value as it comes back from a file: a tuple is a list."""
    return json.loads(json.dumps(value))
