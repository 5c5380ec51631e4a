"""The pieces of work that a worker does: a sweep, a run of one seed, and how fast a layer is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from ritornello.errors import InputError
from ritornello.lab.compare.budget import SWEEP, Budget
from ritornello.lab.compare.contender import build, equal_size, measure_sizes
from ritornello.lab.compare.plan import Plan
from ritornello.lab.compare.speed import measure_speed
from ritornello.lab.compare.trial import WARMUP, Learner, Limit, evaluate, train
from ritornello.models import SequenceModel
from ritornello.tasks import Task

__all__ = ["perform"]

Record = dict[str, Any]
Tick = Callable[[float], None]

TELL_EVERY = 0.2
PATIENCE = 1.15
"""A machine that becomes slower than it was in the sweep is given so many times the seconds that a seed has."""

ALIKE = 0.01
"""Losses that differ by less are not told apart."""

ALSO_TRIED = {"small": (1e-2,)}
"""Small models take larger rates: of width 64, an LSTM learned parity in 400 steps at 1e-2, and not in 600 at 3e-3."""

CLOCKED_STEPS = 3


def perform(work: Record, tick: Tick) -> Record:
    """A piece of the agenda: the record of what came out."""
    plan = Plan.from_dict(work["plan"])
    tick = _rarely(tick)
    if work["kind"] == "speed":
        return {"kind": "speed", "layer": work["layer"], **measure_speed(work["layer"], plan.width, plan.depth)}
    task = plan.task(work["task"])
    if work["kind"] == "sweep":
        return _sweep(plan, work["layer"], task, tick)
    return _run(plan, work, task, tick)


def _rarely(tick: Tick) -> Tick:
    last = 0.0

    def rare(part: float) -> None:
        nonlocal last
        if time.perf_counter() - last > TELL_EVERY:
            tick(part)
            last = time.perf_counter()

    return rare


# ------------------------------------------------------------------------------------------------------------- a seed


def _run(plan: Plan, work: Record, task: Task, tick: Tick) -> Record:
    """Train one seed with the learning rate and the steps of the sweep, and score it over the lengths."""
    began = time.perf_counter()
    learner = _learner(plan, work, task, work["lr"], work["seed"])
    seconds = work["seed_seconds"]
    curve = train(learner, Limit(work["steps"], seconds and seconds * PATIENCE), tick)
    return {
        **{n: work[n] for n in ("kind", "layer", "task", "seed", "lr", "model", "width")},
        "scores": {str(length): score for length, score in evaluate(learner.model, task).items()},
        "steps": learner.steps,
        "cut": learner.steps < work["steps"],
        "lost": learner.lost,
        "tokens": learner.tokens,
        "train_seconds": round(learner.seconds, 3),
        "seconds": round(time.perf_counter() - began, 3),
        "curve": curve,
    }


def _learner(plan: Plan, cell: Record, task: Task, lr: float, seed: int) -> Learner:
    torch.manual_seed(seed)
    return Learner(build(cell["model"], task, cell["width"], plan.depth), task, lr, seed)


# ------------------------------------------------------------------------------------------------------------ a sweep


def _sweep(plan: Plan, layer: str, task: Task, tick: Tick) -> Record:
    """Sizes, learning rate and steps for a layer on a task.

    The steps are the Languini protocol's: what the layer's own measured throughput allows within the budget (Stanić et
    al. 2023, arXiv:2309.11197). The learning rate is found by successive halving: all are trained alike, the better
    half goes on, until one is left (Jamieson and Talwalkar 2016, arXiv:1502.07943).
    """
    budget = Budget.parse(plan.budget)
    began = time.perf_counter()
    model, width = equal_size(layer, task, plan.width, plan.depth, plan.equal)
    cell = {"kind": "sweep", "layer": layer, "task": task.name, "model": model, "width": width}
    rates = sorted({*task.training.learning_rates, *ALSO_TRIED.get(plan.preset, ())})
    learners = [_learner(plan, cell, task, lr, seed=0) for lr in rates]
    sizes = measure_sizes(learners[0].model, task)
    seconds = budget.seed_seconds(plan.workers, plan.seeds)
    untrained, scored = _scored(plan, learners[0].model, task, seconds)
    learners[0].step(0.0)  # the first step of a model is slower: memory, threads
    step_seconds, tokens = _clocked(learners[0])
    training_seconds = None if seconds is None else seconds - scored
    steps = budget.steps(step_seconds, sizes.token_flops * tokens, training_seconds)
    if steps < 1:
        raise InputError(_too_small(plan, step_seconds, sizes.token_flops * tokens, scored))
    left = budget.sweep_seconds(plan.workers)
    if left is None:
        each = max(1, int(steps * SWEEP))
    else:
        each = max(1, int((left - (time.perf_counter() - began)) / step_seconds / _rungs(len(rates))))
    lr, losses = _halve(learners, each, tick)
    step_seconds = sum(x.seconds for x in learners) / sum(x.steps for x in learners)
    return cell | {
        "lr": lr,
        "tried": losses,
        "steps": max(1, budget.steps(step_seconds, sizes.token_flops * tokens, training_seconds)),
        "seed_seconds": training_seconds,
        "step_seconds": step_seconds,
        "score_seconds": scored,
        "untrained": {str(length): score for length, score in untrained.items()},
        "parameters": sizes.parameters,
        "state_bytes": sizes.state_bytes,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _scored(plan: Plan, model: SequenceModel, task: Task, seconds: float | None) -> tuple[dict[int, float], float]:
    """Length → score before any training, and how long that took.

    Raises:
        InputError: longer than a seed has, told after the length at which it has become so.
    """
    began = time.perf_counter()
    found: dict[int, float] = {}
    for length in task.test_lengths:
        found |= evaluate(model, task, [length])
        if seconds is not None and (spent := time.perf_counter() - began) > seconds:
            raise InputError(
                f"`budget` is {plan.budget}, of which a seed gets {_brief(seconds)} s, too little for its scores (up "
                f"to length {length} they took {_brief(spent)} s). Give more, or fewer seeds."
            )
    return found, time.perf_counter() - began


def _clocked(learner: Learner) -> tuple[float, float]:
    """Seconds and tokens of a step."""
    seconds, tokens = learner.seconds, learner.tokens
    for _ in range(CLOCKED_STEPS):
        learner.step(0.0)
    return (learner.seconds - seconds) / CLOCKED_STEPS, (learner.tokens - tokens) / CLOCKED_STEPS


def _rungs(count: int) -> int:
    """How many trainings of one rung successive halving of `count` takes."""
    return 0 if count == 1 else count + _rungs(math.ceil(count / 2))


def _halve(learners: list[Learner], each: int, tick: Tick) -> tuple[float, dict[str, float]]:
    """The learning rate that is left when the better half has gone on again and again, and each one's last loss.

    Where losses are alike, the higher rate is the better one: it goes further before it falls.
    """
    losses: dict[str, float] = {}
    total, done = _rungs(len(learners)) * each, 0
    while len(learners) > 1:
        for learner in learners:
            for _ in range(each):
                learner.step(min(1.0, (learner.steps + 1) / (WARMUP * each)))
                done += 1
                tick(done / total)
            losses[f"{learner.lr:g}"] = learner.validate()
        least = min(losses[f"{x.lr:g}"] for x in learners) * (1 + ALIKE)

        def rank(learner: Learner, least: float = least) -> tuple[float, float]:
            return max(least, losses[f"{learner.lr:g}"]), -learner.lr

        learners = sorted(learners, key=rank)[: math.ceil(len(learners) / 2)]
    return learners[0].lr, losses


def _too_small(plan: Plan, step_seconds: float, step_flops: float, scored: float) -> str:
    needed = f"{step_flops:.3g} FLOP" if "FLOP" in plan.budget else f"{_brief(step_seconds)} s"
    scoring = f", after {_brief(scored)} s for its scores" if plan.budget.endswith("s") else ""
    return (
        f"`budget` is {plan.budget}, of which a seed gets too little for one step of training ({needed}{scoring}). "
        "Give more, or fewer seeds."
    )


def _brief(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
