"""Run rows: numbers first, then times; in a process of its own where a peer is known to hang."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from random import Random
from statistics import median

import torch

from ritornello.errors import BackendError, InputError, nearest
from ritornello.kernels.registry import backend
from ritornello.lab.bench import cells, checkpoints, matrix, models, scans
from ritornello.lab.bench.case import BOTH, Case, Row, Sizes, Work, WrongNumbersError, verify
from ritornello.lab.bench.memory import peak_share
from ritornello.lab.bench.peers import MissingPeerError
from ritornello.lab.bench.timing import Budget, Timing, interleave

__all__ = ["ROWS", "Measured", "Options", "Result", "choose", "draw", "measure", "run_case"]

ROWS: dict[str, Row] = {
    row.name: row for row in [*matrix.ROWS, *scans.ROWS, *cells.ROWS, *models.ROWS, *checkpoints.ROWS]
}


@dataclass(frozen=True)
class Options:
    """How to measure.

    Args:
        peers: measure the peers as well.
        backend: that ours runs on; the one it chooses itself where None.
        quick: small sizes and few rounds, to try the function. Nothing is judged then.
        seconds: of a measurement.
    """

    peers: bool = False
    backend: str | None = None
    quick: bool = False
    seconds: float = 3.0

    @property
    def budget(self) -> Budget:
        return Budget(0.2, 2, 5) if self.quick else Budget(self.seconds)

    def sizes(self, row: Row) -> Sizes:
        return row.sizes | row.quick if self.quick else row.sizes


@dataclass(frozen=True)
class Measured:
    """One pass of a row: the times of both, and the work of a call where it is known."""

    timing: Timing
    work: Work | None = None

    @property
    def rate(self) -> float | None:
        """Work per second of ours, at the median."""
        return self.work.amount / median(self.timing.ours) if self.work else None


@dataclass(frozen=True)
class Result:
    """A row at given sizes: its passes by name, the largest error of its numbers, the peak of its memory as a multiple
    of inputs and outputs, and why it was not timed if so."""

    row: str
    sizes: Sizes
    passes: dict[str, Measured] = field(default_factory=dict)
    error: float | None = None
    memory: float | None = None
    wrong: str | None = None
    note: str | None = None


def choose(names: Iterable[str], long: bool = False) -> list[Row]:
    """The rows of some names or ops, in the order of the table; all of them where there are none.

    Raises:
        InputError: an unknown name.
    """
    names = list(names)
    known = {*ROWS, *(row.op for row in ROWS.values())}
    for name in names:
        if name not in known:
            raise InputError(f"The benchmark has no row or op {name!r}. {nearest(name, known)}")
    if names:
        return [row for row in ROWS.values() if row.name in names or (row.op in names and (long or not row.long))]
    return [row for row in ROWS.values() if long or not row.long]


def draw(row: Row, count: int) -> list[Sizes]:
    """Random sizes, the same in every run; none for a row of fixed sizes."""
    random = Random(row.name)
    return [row.draw(random) for _ in range(count)] if row.draw else []


def measure(row: Row, sizes: Sizes, options: Options) -> Result:
    """Check the numbers of a row and time it."""
    if row.limit is None or not options.peers:
        return measure_here(row, sizes, options)
    return _measure_apart(row, sizes, options, row.limit)


def measure_here(row: Row, sizes: Sizes, options: Options) -> Result:
    torch.manual_seed(0)
    note = None
    try:
        case = row.make(sizes, options.peers)
    except MissingPeerError as missing:
        note = str(missing)
        try:
            case = row.make(sizes, False)
        except MissingPeerError:  # what is measured comes from the peer
            return Result(row.name, sizes, note=note)
    chosen = row.backend or options.backend
    try:
        with backend(chosen) if chosen else nullcontext():
            return run_case(row.name, sizes, case, options.budget, note)
    except BackendError as refusal:
        return Result(row.name, sizes, note=str(refusal))


def run_case(name: str, sizes: Sizes, case: Case, budget: Budget, note: str | None = None) -> Result:
    """Time a case whose numbers are right; of one whose numbers are wrong, say so and time nothing."""
    try:
        error = verify(case.check())
    except WrongNumbersError as wrong:
        return Result(name, sizes, wrong=str(wrong), note=note)
    memory = peak_share(case.ours[BOTH]) if BOTH in case.ours else None
    passes = {
        which: Measured(interleave(call, case.peer.get(which), budget), case.work.get(which))
        for which, call in case.ours.items()
    }
    return Result(name, sizes, passes, error, memory, note=note)


def _measure_apart(row: Row, sizes: Sizes, options: Options, limit: float) -> Result:
    """The same in a new process, which can be stopped inside a C call."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(
        target=_work, args=(sender, row.name, sizes, options, torch.get_num_threads()), daemon=True
    )
    worker.start()
    sender.close()  # ours, so that a worker that dies is seen as the end of the pipe
    try:
        if receiver.poll(limit):
            return receiver.recv()
        note = f"stopped after {limit:g} s with its peer; ours is measured alone"
    except EOFError:
        worker.join()
        note = f"the process with its peer ended with code {worker.exitcode}; ours is measured alone"
    finally:
        worker.kill()
        worker.join()
        receiver.close()
    result = measure_here(row, sizes, Options(False, options.backend, options.quick, options.seconds))
    return replace(result, note=note)


def _work(sender: Connection, name: str, sizes: Sizes, options: Options, threads: int) -> None:
    torch.set_num_threads(threads)
    sender.send(measure_here(ROWS[name], sizes, options))
