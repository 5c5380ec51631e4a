"""minGRU's two claims: it trains as an LSTM does, and a training step is many times as fast as a loop's."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ritornello.lab.compare.contender import build
from ritornello.lab.compare.trial import Learner, Limit, train
from ritornello.lab.reproduce.claim import Finding, Row
from ritornello.layers import build as build_layer
from ritornello.method import Auto, Method, Sequential
from ritornello.tasks import About, Batch, Task, Training, text_files
from ritornello.typing import Tensor

__all__ = ["MIN_GRU", "perform"]

AS_WELL, FASTER = 1.05, 175.0
"""The ratio of the losses that counts as alike, and the published speed-up (a T4 GPU, T = 512, against a GRU)."""

BLOCKS = "short_conv:conv_width=4+{0}+short_conv:conv_width=4+{0}"
"""Both are trained in the paper's blocks, a convolution over four steps before the recurrence and an MLP after it."""

WIDTHS = {"min_gru": 72, "lstm": 64}
"""At which the models have as many parameters, to 4 %: at one width, the gates of an LSTM have four times minGRU's."""

STEPS, BATCH, LENGTH, RATE = 300, 16, 128, 5e-3
TIMED = {"batch": 16, "length": 512, "width": 64}
BYTES = 2_000_000
TRAINING = Training(steps=STEPS, batch=BATCH, learning_rates=(RATE,))


@cache
def _library() -> Tensor:
    """The first bytes of the standard library's source, which every machine has."""
    parts, total = [], 0
    for document in text_files.walk(Path(sysconfig.get_path("stdlib")), ("site-packages", "dist-packages", "test")):
        if document.name.endswith(".py"):
            parts.append(document.text)
            total += len(document.text)
        if total > BYTES:
            break
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True)
class SourceCode(Task):
    """The next byte of Python's standard library; the last tenth of the text is held out."""

    name: ClassVar[str] = "source_code"
    about: ClassVar[About] = About("Bytes of source code", "none", "Language modelling.")
    small: ClassVar = MappingProxyType({})
    train_length: int = LENGTH  # pyright: ignore[reportIncompatibleMethodOverride]
    test_lengths: tuple[int, ...] = (LENGTH,)  # pyright: ignore[reportIncompatibleMethodOverride]
    training: Training = TRAINING

    @property
    def inputs(self) -> int:
        return 256

    @property
    def classes(self) -> int:
        return 256

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        text, length = _library(), length or self.train_length
        cut = len(text) * 9 // 10
        low, high = (0, cut) if split == "train" else (cut, len(text))
        starts = torch.randint(low, high - length, (batch, 1), generator=generator)
        rows = text[starts + torch.arange(length + 1)].long()
        return Batch(rows[:, :-1], rows[:, 1:], torch.ones(batch, length, dtype=torch.bool))

    def solve(self, inputs: Tensor) -> Tensor:
        return inputs.roll(-1, 1)  # all that a row itself tells


def perform(work: Mapping[str, Any], tick: Callable[[float], None]) -> dict[str, Any]:
    """A training on text, or the timing of a layer."""
    if work["kind"] == "time":
        return {"claim": work["claim"], "kind": "time", "part": work["part"], "ratio": _speed_up(work["loop"])}
    torch.manual_seed(work["seed"])
    task = SourceCode()
    learner = Learner(build(BLOCKS.format(work["layer"]), task, work["width"], 4), task, RATE, work["seed"])
    train(learner, Limit(STEPS), tick)
    found = {n: work[n] for n in ("claim", "kind", "layer", "width", "seed")}
    return found | {"loss": _held_out(learner)}


@torch.no_grad()
def _held_out(learner: Learner) -> float:
    """The loss in nats of held-out bytes."""
    batch = learner.task.sample(64, generator=torch.Generator().manual_seed(0), split="test")
    return learner.task.loss(learner.model(batch.inputs)[0], batch).item()


def _speed_up(loop: str) -> float:
    """How many times as long a training step of the layer `loop` takes, a loop over time in PyTorch."""
    return _step_seconds(loop, Sequential()) / _step_seconds("min_gru", Auto())


def _step_seconds(name: str, method: Method) -> float:
    torch.manual_seed(0)
    layer = build_layer(name, TIMED["width"])
    x = torch.randn(TIMED["batch"], TIMED["length"], TIMED["width"], requires_grad=True)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        layer(x, method=method)[0].sum().backward()
        times.append(time.perf_counter() - began)
    return min(times)


@dataclass(frozen=True)
class MinGRUClaim:
    """The claim, as its runs and its judgement; what `Claim` is for tasks."""

    name: str = "min_gru"
    claimed: str = "minGRU trains as an LSTM does, and its parallel training step takes 1/175 of a GRU's at length 512."
    source: str = "Feng et al. 2024, arXiv:2410.01201, figure 1 (a T4 GPU) and section 4"
    note: str = (
        "The published speed-up is of a GPU, whose thousands of lanes stand idle in a loop. Here both run on a CPU: "
        "the loop is of PyTorch calls, minGRU one kernel call, whose steps are computed one after the other as well. "
        "The paper compares losses with those of Mamba and of a Transformer; that of an LSTM is asked for here."
    )

    def work(self, seeds: int) -> list[dict[str, Any]]:
        texts = [
            {"kind": "text", "claim": self.name, "layer": layer, "width": width, "seed": seed}
            for layer, width in WIDTHS.items()
            for seed in range(seeds)
        ]
        return [*texts, *({"kind": "time", "claim": self.name, "part": p, "loop": p} for p in ("gru", "lstm"))]

    def needs(self, work: Mapping[str, Any], results: Sequence[Mapping[str, Any]], seeds: int) -> bool:
        return True

    def judge(self, results: Sequence[Mapping[str, Any]], problems: Sequence[str] = ()) -> Finding:
        losses = {(r["layer"], r["seed"]): r["loss"] for r in results if r["kind"] == "text"}
        seeds = sorted(seed for layer, seed in losses if layer == "min_gru" and ("lstm", seed) in losses)
        ratios = [losses["min_gru", seed] / losses["lstm", seed] for seed in seeds]
        faster = {r["part"]: r["ratio"] for r in results if r["kind"] == "time"}
        rows: list[Row] = []
        if ratios:
            mean = sum(ratios) / len(ratios)
            rows.append(("loss on source code, to an LSTM's", f"≤ {AS_WELL:g}", ratios, mean <= AS_WELL))
        for part, ratio in sorted(faster.items()):
            wanted = f"≥ {FASTER:g}" if part == "gru" else "told only"
            rows.append((f"times as fast as a loop of {part}", wanted, [ratio], part != "gru" or ratio >= FASTER))
        return Finding.of(self.name, rows, 3, problems)


MIN_GRU = MinGRUClaim()
