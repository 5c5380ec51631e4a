"""Training and scoring one model on one task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ritornello.models import SequenceModel
from ritornello.tasks import Batch, Task
from ritornello.typing import Tensor

__all__ = ["Learner", "Limit", "evaluate", "train"]

CLIP = 1.0
WARMUP, LAST = 0.1, 0.05
"""The part of the training in which the rate rises, and what is left of it at the end of the cosine."""

POINTS = 40
"""Of a learning curve."""

SCORED_STEPS, FEWEST_ROWS, MOST_ROWS = 2**14, 32, 512
"""A length is scored on this many steps, in no fewer and no more sequences."""

OUTPUTS_AT_ONCE = 2**24
TEST_SEED, VALIDATION_SEED = 1_000_000_007, 1_000_000_009

Tick = Callable[[float], None]
"""Is told the part that is done."""


class Learner:
    """A model in training on a task by AdamW with clipped gradients. What it reads follows from the seed alone."""

    def __init__(self, model: SequenceModel, task: Task, lr: float, seed: int):
        self.model, self.task, self.lr = model, task, lr
        self.generator = torch.Generator().manual_seed(seed)
        groups = model.parameter_groups(task.training.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr, (0.9, 0.98), fused=True)
        self.steps, self.tokens, self.seconds = 0, 0, 0.0
        self.lost = False

    def step(self, factor: float = 1.0, progress: float = 1.0) -> float:
        """One update with `factor` of the learning rate, at a part of the training; returns the loss in nats.

        A loss that is no number ends the learning: what follows changes nothing.
        """
        began = time.perf_counter()
        batch = self.task.stage(progress).sample(self.task.training.batch, generator=self.generator)
        loss = self._loss(batch)
        value = loss.item()
        self.lost = self.lost or not math.isfinite(value)
        if not self.lost:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * factor
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
        self.steps += 1
        self.tokens += batch.mask.numel()
        self.seconds += time.perf_counter() - began
        return value

    def _loss(self, batch: Batch) -> Tensor:
        """The task's loss, with outputs only where they count: a vocabulary of thousands at every step costs more than
        the layers."""
        hidden = self._hidden(batch.inputs)
        where = batch.mask
        counted = Batch(batch.inputs, batch.targets[where].unsqueeze(0), where[where].unsqueeze(0))
        return self.task.loss(self.model.head(hidden[where]).unsqueeze(0), counted)

    def _hidden(self, inputs: Tensor) -> Tensor:
        """What the head reads, (B, T, width)."""
        return self.model.hidden(inputs)[0]

    @torch.no_grad()
    def validate(self) -> float:
        """The loss on batches that no training draws; infinite where the learning is lost."""
        if self.lost:
            return math.inf
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        batches = [self.task.sample(self.task.training.batch, generator=generator) for _ in range(2)]
        loss = sum(self._loss(batch).item() for batch in batches) / len(batches)
        return loss if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class Limit:
    """How long a training lasts: `steps`, and no longer than `seconds` on a machine that has become slower."""

    steps: int
    seconds: float | None = None

    def progress(self, learner: Learner) -> float:
        done = learner.steps / self.steps
        return done if self.seconds is None else max(done, learner.seconds / self.seconds)


def train(learner: Learner, limit: Limit, tick: Tick = lambda part: None) -> list[tuple[int, float, float]]:
    """Train to the limit, the learning rate rising linearly and falling by half a cosine.

    Returns:
        The learning curve: (steps, seconds, mean loss since the point before).
    """
    curve: list[tuple[int, float, float]] = []
    losses: list[float] = []
    while (progress := limit.progress(learner)) < 1:
        losses.append(learner.step(rate(progress, limit.steps), progress))
        if limit.progress(learner) >= (len(curve) + 1) / POINTS:
            curve.append((learner.steps, round(learner.seconds, 3), sum(losses) / len(losses)))
            losses.clear()
        tick(progress)
    return curve


def rate(progress: float, steps: int) -> float:
    """The part of the learning rate at a part of the training; the first step is not lost to a rate of zero."""
    rising = (progress + 1 / steps) / WARMUP
    fallen = max(0.0, progress - WARMUP) / (1 - WARMUP)
    return rising if rising < 1 else LAST + (1 - LAST) * (1 + math.cos(math.pi * fallen)) / 2


@torch.no_grad()
def evaluate(model: SequenceModel, task: Task, lengths: Iterable[int] | None = None) -> dict[int, float]:
    """Length → score, over the task's lengths: the same sequences for every model and seed."""
    model.eval()
    scores = {}
    for length in task.test_lengths if lengths is None else lengths:
        generator = torch.Generator().manual_seed(TEST_SEED + length)
        batch = task.sample(_rows(length), length, generator=generator, split="test")
        at_once = max(1, OUTPUTS_AT_ONCE // (batch.mask.shape[1] * task.classes))
        predicted = [_predict(model, task, inputs) for inputs in batch.inputs.split(at_once)]
        scores[length] = task.score(torch.cat(predicted), batch)
    model.train()
    return scores


def _predict(model: SequenceModel, task: Task, inputs: Tensor) -> Tensor:
    outputs = model(inputs)[0]
    return outputs.argmax(-1) if task.kind == "classify" else outputs


def _rows(length: int) -> int:
    return min(MOST_ROWS, max(FEWEST_ROWS, SCORED_STEPS // length))
