"""Processes that work side by side, each with its own threads. One that dies takes only its own piece of work along."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ritornello.errors import RitornelloError
from ritornello.kernels import native

__all__ = ["Outcome", "Pool"]

Work = dict[str, Any]
Perform = Callable[[Work, Callable[[float], None]], Any]
"""Does a piece of work, telling the part that is done; runs in the worker, so it is a function of a module."""


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of work: its result, or why there is none; or how far it is.

    `refused`: the reason is a sentence of ours about what was asked.
    """

    work: Work
    result: Any = None
    failure: str | None = None
    refused: bool = False
    progress: float | None = None


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    work: Work | None = None


@dataclass
class Pool:
    """`size` workers with `threads` threads each, which take pieces of work as they come free.

    Args:
        perform: what a worker does with a piece of work.
        size: how many workers.
        threads: of each.
    """

    perform: Perform
    size: int
    threads: int
    _workers: list[_Worker] = field(default_factory=list)

    def run(self, following: Callable[[], Work | None]) -> Iterator[Outcome]:
        """Do the work that `following` hands out until it has none and all are done; tell outcomes as they come.

        `following` is asked again after every outcome, so a result may bring new work.
        """
        native.available()  # says here, once for all workers, that the kernels are not built
        while True:
            self._hand_out(following)
            busy = [w for w in self._workers if w.work is not None]
            if not busy:
                return
            for pipe in wait([w.pipe for w in busy]):
                worker = next(w for w in busy if w.pipe is pipe)
                yield self._hear(worker)

    def close(self) -> None:
        """Stop all workers, whatever they do."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _hand_out(self, following: Callable[[], Work | None]) -> None:
        while True:
            idle = next((w for w in self._workers if w.work is None), None)
            if idle is None and len(self._workers) >= self.size:
                return
            work = following()
            if work is None:
                return
            worker = idle or self._start()
            worker.work = work
            with suppress(OSError):  # a worker that has died is heard of as the end of its pipe
                worker.pipe.send(work)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.perform, self.threads), daemon=True)
        process.start()
        theirs.close()  # or the end of the pipe would not be seen
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker) -> Outcome:
        work = worker.work
        assert work is not None
        try:
            kind, *told = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            worker.pipe.close()
            code = worker.process.exitcode
            why = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            return Outcome(work, failure=f"the worker {why}")
        if kind == "progress":
            return Outcome(work, progress=told[0])
        worker.work = None
        if kind == "failure":
            return Outcome(work, failure=told[0], refused=told[1])
        return Outcome(work, result=told[0])


def _serve(pipe: Connection, perform: Perform, threads: int) -> None:
    """The life of a worker. It ends when the other end of its pipe is gone, whoever closed it."""
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native.available()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            work = pipe.recv()
            try:
                answer = ("result", perform(work, lambda part: pipe.send(("progress", part))))
            except (BrokenPipeError, EOFError):
                raise
            except RitornelloError as error:
                answer = ("failure", str(error), True)
            except Exception as error:  # whatever a layer does: it is recorded, and the rest goes on
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{last.filename.rpartition('ritornello/')[2]}:{last.lineno}"
                answer = ("failure", f"{type(error).__name__}: {error} ({where})", False)
            pipe.send(answer)


def _end_with_parent() -> None:
    """A worker whose parent was killed does not finish its piece: the next comparison would be measured beside it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
