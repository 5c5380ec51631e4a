"""Running a comparison: the agenda's work in the pool's processes, every result on the disk before the next begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ritornello.errors import InputError
from ritornello.lab.compare.folder import Folder
from ritornello.lab.compare.plan import Agenda, Plan
from ritornello.lab.compare.pool import Outcome, Pool
from ritornello.lab.compare.work import perform

__all__ = ["compare", "default_workers"]

Record = dict[str, Any]
Watch = Callable[[Outcome, Agenda], None]


def default_workers() -> int:
    """As many as there are cores: small models use one thread each better than they share several."""
    return os.cpu_count() or 1


def compare(
    plan: Plan, out: str | Path, command: str = "", watch: Watch = lambda outcome, agenda: None
) -> tuple[Folder, list[Record]]:
    """Do what a plan still needs, in `plan.workers` processes that share the cores.

    Args:
        plan: what is compared.
        out: the folder; one in which this comparison was begun is gone on with.
        command: how it was called, for the report.
        watch: hears of every outcome.

    Returns:
        The folder, and all its records.

    Raises:
        InputError: the folder holds something else, or another process is at work in it, or the budget is too small for
            every layer.
    """
    folder = Folder.open(Path(out), plan, command)
    with folder.alone():
        return folder, _work(folder, watch)


def _work(folder: Folder, watch: Watch) -> list[Record]:
    plan, records = folder.plan, folder.store.read()
    agenda = Agenda(plan, records)
    threads = max(1, default_workers() // plan.workers)
    told = plan.to_dict()

    def following() -> Record | None:
        work = agenda.following()
        return work and work | {"plan": told}

    refusals = []
    with Pool(perform, plan.workers, threads) as pool:
        for outcome in pool.run(following):
            if outcome.progress is None:
                record = _record(outcome)
                folder.store.append(record)
                records.append(record)
                agenda.note(record)
                refusals += [record["why"]] if outcome.refused else []
            watch(outcome, agenda)
    if refusals and not any(r["kind"] == "run" for r in records):
        raise InputError(refusals[0])
    return records


def _record(outcome: Outcome) -> Record:
    if outcome.failure is None:
        return outcome.result
    about = {n: outcome.work[n] for n in ("layer", "task", "seed") if n in outcome.work}
    return {"kind": "failure", "stage": outcome.work["kind"], **about, "why": outcome.failure}
