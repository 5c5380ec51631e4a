"""What the tests of comparisons share: a task that is learnt in seconds, a pool without processes, made-up records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ritornello.errors import RitornelloError
from ritornello.lab.compare import Plan
from ritornello.lab.compare.pool import Outcome
from ritornello.tasks import About, Batch, Figure, Task, Training

TRAINING = Training(steps=40, batch=8, learning_rates=(1e-4, 3e-2))


@dataclass(frozen=True, kw_only=True)
class Echo(Task):
    """y_t = x_t."""

    name: ClassVar[str] = "echo"
    about: ClassVar[About] = About("Echo <of> a token", "none", "Whether anything is learnt.")
    small: ClassVar = MappingProxyType({})
    published: ClassVar = MappingProxyType({"min_gru": Figure(0.875, "one block", "Nobody 2024")})
    train_length: int = 6  # pyright: ignore[reportIncompatibleMethodOverride]
    test_lengths: tuple[int, ...] = (6, 12)  # pyright: ignore[reportIncompatibleMethodOverride]
    training: Training = TRAINING

    @property
    def inputs(self) -> int:
        return 4

    @property
    def classes(self) -> int:
        return 4

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        x = torch.randint(0, 4, (batch, length or self.train_length), generator=generator)
        return Batch(x, x, x > 0)

    def solve(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


class Here:
    """A pool that works in this process."""

    def __init__(self, perform, size: int, threads: int):
        self.perform = perform

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, following: Callable[[], dict[str, Any] | None]) -> Iterator[Outcome]:
        while (work := following()) is not None:
            try:
                yield Outcome(work, self.perform(work, lambda part: None))
            except RitornelloError as error:
                yield Outcome(work, failure=str(error), refused=True)


def records(plan: Plan, missing: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Records such as a comparison leaves: the first layer is right, the last one at chance."""
    found: list[dict[str, Any]] = []
    for rank, layer in enumerate(plan.layers):
        share = 1 - rank / max(1, len(plan.layers) - 1)
        for name in plan.tasks:
            task, cell = plan.task(name), {"layer": layer, "task": name}
            sizes = {
                "parameters": 1000 + rank,
                "state_bytes": 256 << rank,
                "width": plan.width,
                "model": layer,
                "lr": 3e-3,
            }
            found.append({"kind": "sweep", **cell, **sizes, "steps": 10, "seed_seconds": 1.0})
            if layer in missing:
                found.append({"kind": "failure", "stage": "run", **cell, "seed": 0, "why": "the worker <died>"})
                continue
            for seed in range(plan.seeds):
                scores = {
                    str(n): task.chance + share * (task.ceiling - task.chance) * (0.999 - 0.01 * seed)
                    for n in task.test_lengths
                }
                curve = [[n, n / 10, 1 / n] for n in range(1, 11)]
                run = {"kind": "run", **cell, **sizes, "seed": seed, "scores": scores, "steps": 10, "tokens": 2560}
                found.append({**run, "cut": False, "lost": False, "train_seconds": 1.0, "seconds": 1.5, "curve": curve})
        rates = [1e4, 2e4, 3e4 / (rank + 1)]
        speed = {"lengths": [128, 512, 2048], "tokens_per_second": rates, "saved_bytes": [1e5, 4e5, 16e5]}
        found.append({"kind": "speed", "layer": layer, **speed})
    return found
