"""State tracking, in a size that a laptop trains in a minute: one layer reads words of at most 40 symbols in training,
and of 256 in the test.

    python -m ritornello.lab.state_tracking                       # the table of docs/state-tracking.md
    python -m ritornello.lab.state_tracking --layers lstm --tasks parity

Parity asks for the sum of the bits so far modulo 2; S₃ for the product of the permutations so far. After every symbol
there is an answer. Nothing helps but to keep the state: a layer that has only learned to look at what it has seen fails
beyond the lengths of training.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ritornello import tasks
from ritornello.layers import M2RNN
from ritornello.models import ModelConfig, SequenceModel
from ritornello.models.weights import parameter_groups
from ritornello.typing import Tensor

__all__ = ["RECIPES", "TASKS", "Recipe", "Result", "main", "run", "table"]

LONGEST, TEST, TAIL, WORDS = 40, 256, 64, 256
"""Symbols of the longest word in training and of those in the test; symbols at the end of a test, and its words."""

TASKS: Mapping[str, tasks.Task] = {
    "parity": tasks.Parity(train_length=LONGEST, dense=True),
    "s3": tasks.S3(train_length=LONGEST),
}


@dataclass(frozen=True)
class Recipe:
    """How a model with one such layer is trained. What is given here is the training of every layer of the table.

    Args:
        options: of the layer.
        learning_rate: the peak of AdamW's: 50 steps up, then level, then down to zero in the last 30 %.
        init_std: of the projections and embeddings. GPT-2's 0.02 leaves M²RNN's products k vᵀ next to nothing to write.
        gain: where given, M²RNN's W starts as random numbers of about gain / value size, every head's of norm `gain`
            and orthogonal to the others', not as the identity, from which next to nothing is learned in so few steps.
        forget: where given, M²RNN's forget gates start here; the authors' start near 1, where a step changes little.
        weight_decay: of AdamW, of matrices only, as `parameter_groups` has it.
        width, steps, batch: as everywhere.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 5e-3
    init_std: float = 0.25
    gain: float | None = None
    forget: float | None = None
    weight_decay: float = 0.1
    width: int = 64
    steps: int = 2000
    batch: int = 64


RECIPES: Mapping[str, Recipe] = {
    "lstm": Recipe(),
    "slstm": Recipe(),
    # A row of S is an automaton by itself, and the plain way to build one has a unit for each pair of a state and a
    # symbol: 36 on S₃, more than a head of 32 values has. And what f keeps is not pushed to ±1, where errors die out.
    "m2rnn": Recipe({"heads": 4, "key_size": 2, "value_size": 64, "conv_width": 1}, gain=1.5, forget=0.05),
    "gla": Recipe(),
}


@dataclass(frozen=True)
class Result:
    """What one training came to: the parts of answers that are right in words of 256, all of them and the last 64; how
    many seconds it took; how many parameters there are; and what all random numbers were drawn from."""

    layer: str
    task: str
    every: float
    tail: float
    seconds: float
    parameters: int
    seed: int = 0


def run(layer: str, task: str, recipe: Recipe, seed: int = 0) -> Result:
    """Train one model, and test it on longer words."""
    torch.manual_seed(seed)
    rule = TASKS[task]
    config = ModelConfig(
        vocab_size=rule.inputs,
        width=recipe.width,
        pattern=[(layer, dict(recipe.options))],
        depth=1,
        init_std=recipe.init_std,
    )
    model = SequenceModel(config, outputs=rule.classes)
    for part in model.modules():
        if isinstance(part, M2RNN):
            _start(part, recipe)
    begun = time.perf_counter()
    _train(model, rule, recipe, torch.Generator().manual_seed(seed))
    seconds = time.perf_counter() - begun
    right = _right(model, rule, torch.Generator().manual_seed(seed + 1))
    count = sum(p.numel() for p in model.parameters())
    return Result(layer, task, right.mean().item(), right[:, -TAIL:].mean().item(), seconds, count, seed)


@torch.no_grad()
def _start(layer: M2RNN, recipe: Recipe) -> None:
    """Other first values of W and of the forget gates than the authors'."""
    if recipe.gain is not None:
        torch.nn.init.orthogonal_(layer.cell.weight, recipe.gain)
    if recipe.forget is not None:  # exp(−softplus(dt_bias)) with a rate of 1
        layer.decay.A_log.zero_()
        layer.decay.dt_bias.fill_(math.log(math.expm1(-math.log(recipe.forget))))


def _train(model: SequenceModel, rule: tasks.Task, recipe: Recipe, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), lr=recipe.learning_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50, (1 - step / recipe.steps) / 0.3)
    )
    for _ in range(recipe.steps):
        length = int(torch.randint(3, LONGEST + 1, (), generator=generator))
        batch = rule.sample(recipe.batch, length, generator=generator)
        loss = rule.loss(model(batch.inputs)[0], batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def _right(model: SequenceModel, rule: tasks.Task, generator: torch.Generator) -> Tensor:
    """(words, 256) which answers are right."""
    batch = rule.sample(WORDS, TEST, generator=generator, split="test")
    return (model(batch.inputs)[0].argmax(-1) == batch.targets).double()


def table(results: Sequence[Result]) -> str:
    """A row for each layer and task, in Markdown: the shares of every seed, and the seconds of the fastest."""
    lines = [
        f"| layer | task | chance | all {TEST} answers | the last {TAIL} | parameters | training |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for layer, task in dict.fromkeys((r.layer, r.task) for r in results):
        runs = [r for r in results if (r.layer, r.task) == (layer, task)]
        shares = ([1 / TASKS[task].classes], [r.every for r in runs], [r.tail for r in runs])
        cells = [", ".join(f"{100 * share:.1f}" for share in column) + " %" for column in shares]
        seconds = min(r.seconds for r in runs)
        lines.append(f"| `{layer}` | {task} | {' | '.join(cells)} | {runs[0].parameters:,} | {seconds:.0f} s |")
    return "\n".join(lines)


def _results(layers: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> Iterator[Result]:
    for name in names:
        for layer in layers:
            for seed in seeds:
                yield run(layer, name, RECIPES[layer], seed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ritornello.lab.state_tracking", description=__doc__)
    parser.add_argument("--layers", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args(arguments)
    found = []
    for result in _results(given.layers, given.tasks, given.seeds):
        found.append(result)
        print(f"seed {result.seed}: {table([result]).splitlines()[-1]}", flush=True)
    print("\n" + table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
