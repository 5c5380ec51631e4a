"""The training loop: batches in, checkpoints and a curve out. A resumed run computes what an unbroken one would."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ritornello import hub
from ritornello import state as states
from ritornello.errors import InputError
from ritornello.models import LanguageModel
from ritornello.state import State
from ritornello.train import checkpoint, devices
from ritornello.train.batches import Packed, Streams, Tokens
from ritornello.train.evaluate import bits_per_byte
from ritornello.train.interrupt import interruptible
from ritornello.train.log import Log, plot
from ritornello.train.objective import Objective
from ritornello.train.optimizers import optimizers
from ritornello.train.settings import Settings

__all__ = ["Divergence", "Interrupted", "Outcome", "Trainer"]

CARRIED = "carried.safetensors"
SAVE_SECONDS = 600.0
"""A checkpoint is made at least this often, between evaluations too, where one process trains: clocks differ."""


class Divergence(InputError):
    """The loss or the gradient is no longer a number."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the run has been saved."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to: updates, seconds of training, held-out bits per byte, and where the last checkpoint lies."""

    step: int
    seconds: float
    bits_per_byte: float
    checkpoint: Path


class Trainer:
    """Train a language model.

    Args:
        model: a LanguageModel.
        data: what it is trained on.
        heldout: what it is evaluated on.
        settings: how.
        out: the folder of the run.
        record: a JSON value that is kept in the checkpoints, e.g. where the data lies.
        show: progress on standard error.
        tensorboard: log for TensorBoard as well.
    """

    def __init__(
        self,
        model: LanguageModel,
        data: Tokens,
        heldout: Tokens,
        settings: Settings,
        out: str | Path,
        *,
        record: Any = None,
        show: bool = True,
        tensorboard: bool = False,
    ):
        self.data, self.heldout, self.settings, self.out, self.record = data, heldout, settings, Path(out), record
        self.show, self.tensorboard = show, tensorboard
        self.step, self.seconds = 0, 0.0
        self.fabric = devices.launch(settings, model)
        self.objective = Objective(model.train(), settings.carry_state, settings.balance)
        self.wrapped = self.fabric.setup_module(self.objective)
        # Only now: sharding has put other parameters in the model's place.
        self.optimizers = optimizers(model, settings)
        wrapped: Any = self.fabric.setup_optimizers(*self.optimizers)
        self.wrapped_optimizers = wrapped if isinstance(wrapped, tuple) else (wrapped,)
        batches = Streams if settings.carry_state else Packed
        rank, world = self.fabric.global_rank, self.fabric.world_size
        self.batches = batches(data, settings.batch, settings.length, settings.seed, rank, world)

    # ------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> Outcome:
        """Train to the end of the settings, evaluate, save.

        Raises:
            Divergence: the loss is no number; the last good checkpoint stays.
            Interrupted: Ctrl-C; the run was saved.
            CheckpointError: a checkpoint could not be written; the one before stays.
        """
        first = self.fabric.global_rank == 0
        with checkpoint.held(self.out) if first else nullcontext():
            return self._run(first)

    def _run(self, first: bool) -> Outcome:
        log = Log(self.out if first else None, self.step, show=self.show and first, tensorboard=self.tensorboard)
        score, evaluated, saved_at = math.nan, -1, time.monotonic()
        with log, interruptible() as interrupted:
            while (before := self.progress) < 1:
                values, stop = self._update(interrupted.is_set)
                log.row(self.progress, **values)
                if stop:
                    self.save()
                    raise Interrupted(f"The run was saved at step {self.step}.")
                if self._due(before):
                    score, evaluated = self._evaluate(log), self.step
                if evaluated == self.step or (self.alone and time.monotonic() - saved_at > SAVE_SECONDS):
                    self.save()
                    saved_at = time.monotonic()
            if evaluated != self.step:
                score = self._evaluate(log)
                self.save()
        if first:
            plot(self.out)
        return Outcome(self.step, self.seconds, score, checkpoint.latest(self.out) or self.out)

    @property
    def progress(self) -> float:
        """How much of the run is behind."""
        return self.settings.progress(self.step, self.seconds)

    @property
    def alone(self) -> bool:
        """Whether this process is the only one; else all must agree on what they do next."""
        return self.fabric.world_size == 1

    @cached_property
    def fingerprint(self) -> str:
        """What tells the data from other data."""
        return hashlib.sha256(self.data.ids.numpy().data).hexdigest()

    def _due(self, before: float) -> bool:
        """Whether to evaluate and save now, after a step that began at the progress `before`."""
        every = self.settings.eval_every
        return self.step % every == 0 if every else int(10 * before) < int(10 * self.progress)

    def _update(self, interrupted: Callable[[], bool]) -> tuple[dict[str, Any], bool]:
        """One update of the weights: what it gives to the log, and whether any process was asked to stop."""
        settings, began = self.settings, time.perf_counter()
        lr = settings.lr_at(self.progress)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        # Dropout, too, is a function of the step, and of the process: each drops other numbers.
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed(settings.seed * 1_000_003 + self.step * world + rank)
        total, tokens = 0.0, 0
        for turn in range(settings.accumulate):
            batch = self.batches.at(self.step * settings.accumulate + turn)
            last = turn == settings.accumulate - 1
            with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
                loss = self.wrapped(*self.fabric.to_device((batch.ids, batch.targets, batch.cu_seqlens)), batch.fresh)
                self.fabric.backward(loss / settings.accumulate)
            total += loss.item() / settings.accumulate
            tokens += batch.ids.numel() * self.fabric.world_size
        # One norm of all gradients: Fabric's would be that of a single optimiser's, and Muon is not alone.
        parameters = [p for o in self.optimizers for group in o.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        total, norm, asked = self._agree(total, norm.item(), float(interrupted()))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise self._diverged(total, norm)
        for optimizer in self.wrapped_optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        seconds = self._agree(time.perf_counter() - began)[0]
        self.seconds += seconds
        values = {"step": self.step, "seconds": self.seconds, "tokens": self.step * tokens, "loss": total, "lr": lr}
        return values | {"grad_norm": norm, "tokens_per_second": tokens / seconds}, asked > 0

    def _agree(self, *values: float) -> list[float]:
        """The mean of each value over the processes."""
        if self.alone:
            return list(values)
        mean: Any = self.fabric.all_reduce(torch.tensor(values, dtype=torch.float32), reduce_op="mean")
        return mean.tolist()

    def _diverged(self, loss: float, norm: float) -> Divergence:
        kept = checkpoint.latest(self.out)
        stays = f"The last good checkpoint is {str(kept)!r}." if kept else "There is no checkpoint yet."
        return Divergence(
            f"At step {self.step + 1} the loss is {loss} and the gradient's norm {norm}: training stopped. {stays} "
            f"Lower the learning rate ({self.optimizers[0].param_groups[0]['lr']:.2g} then), or lengthen the warm-up."
        )

    def _evaluate(self, log: Log) -> float:
        model = devices.whole(self.objective.model).to(self.fabric.device)  # a copy only where weights are sharded
        with self.fabric.autocast():
            score = bits_per_byte(model, self.heldout, self.fabric.device)
        log.row(self.progress, step=self.step, seconds=self.seconds, heldout_bits_per_byte=score)
        log.say(f"step {self.step:6d}   {self.seconds:6.0f} s   held-out {score:.3f} bits per byte")
        return score

    # ----------------------------------------------------------------------------------------------- save and restore

    def save(self) -> None:
        """Make a checkpoint of this step; every process takes part."""
        model = devices.whole(self.objective.model)
        carried = self._gathered()
        training = {
            "step": self.step,
            "seconds": self.seconds,
            "settings": self.settings.as_dict(),
            "record": self.record,
            "data": self.fingerprint,
            "optimizer": devices.optimizer_state(self.objective, self.optimizers),
        }

        def write(folder: Path) -> None:
            hub.save(model, folder)
            if carried is not None:
                states.save(carried, folder / CARRIED)

        if self.fabric.global_rank == 0:
            checkpoint.save(self.out, self.step, write, training)
        self.fabric.barrier()

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint, whose model this trainer was made with, as if the run had never stopped.

        Raises:
            CheckpointError: it is broken.
            InputError: it was trained on other data.
        """
        found = checkpoint.read_training(folder)
        if found["data"] != self.fingerprint:
            raise InputError(
                f"The data is not what {str(folder)!r} was trained on: its texts or tokens have changed. Give the same "
                "files, or start a new run in another folder."
            )
        devices.restore_optimizer(self.objective, self.optimizers, found["optimizer"])
        self.step, self.seconds = found["step"], found["seconds"]
        if (folder / CARRIED).exists():
            rank, rows = self.fabric.global_rank, self.settings.batch
            carried = states.rows(states.load(folder / CARRIED), slice(rank * rows, (rank + 1) * rows))
            self.objective.carried = states.to(carried, self.fabric.device)

    def _gathered(self) -> State | None:
        """The carried state of all processes' rows."""
        carried = self.objective.carried
        if carried is None or self.alone:
            return carried
        gather: Any = self.fabric.all_gather  # of each tensor (processes, rows, ...)
        return states.map_tensors(lambda t: gather(t).flatten(0, 1), carried)
