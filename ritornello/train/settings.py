"""How a model is trained, as a value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ritornello.errors import InputError, nearest

__all__ = ["Settings"]

STRATEGIES = ("ddp", "fsdp")
OPTIMIZERS = ("adamw", "muon")
MOST_SEED = 10**12
"""A step's seed is a million times as large, and PyTorch takes 64 bits."""


@dataclass(frozen=True)
class Settings:
    """The hyper-parameters of a run.

    Args:
        steps: updates of the weights; None: as many as fit into `minutes`.
        minutes: of training, evaluation apart; the schedule then follows the clock. With both, what ends first.
        batch: windows per step on each device.
        length: tokens per window.
        lr: the peak of the learning rate: linear warm-up, then half a cosine down to `final_lr` times the peak.
        warmup: the part of the run that warms up.
        final_lr: what is left of the peak at the end.
        weight_decay: decoupled (AdamW), on matrices; parameters tagged `no_weight_decay` are left out.
        optimizer: ``"adamw"``, or ``"muon"`` for the projections with AdamW for the rest (one device, or ``"ddp"``).
        beta2: of AdamW; beta1 is 0.9.
        clip: the largest norm of the gradient.
        balance: how much of the loss that keeps the loads of routers even is added (see `LanguageModel.loss`).
        accumulate: batches whose gradients are summed before an update.
        carry_state: each row reads one stretch of text window by window, and its state goes on from one to the next
            (backpropagation is truncated at the window); else windows are shuffled and documents packed. A state that
            grows, as of attention without a window, then holds all that was read in a pass over the text.
        bf16: matrix products in bfloat16 (autocast); weights and states stay float32.
        eval_every: steps between two evaluations, each followed by a checkpoint; None: ten in the run, by its progress.
        seed: of the weights and of the order of the data.
        devices: processes that share each step.
        strategy: how they do: ``"ddp"`` every one has all weights, ``"fsdp"`` weights are sharded (FSDP2).
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    length: int = 256
    lr: float = 2e-3
    warmup: float = 0.05
    final_lr: float = 0.1
    weight_decay: float = 0.1
    optimizer: str = "adamw"
    beta2: float = 0.95
    clip: float = 1.0
    balance: float = 0.0
    accumulate: int = 1
    carry_state: bool = False
    bf16: bool = False
    eval_every: int | None = None
    seed: int = 0
    devices: int = 1
    strategy: str = "ddp"

    def __post_init__(self):
        if self.steps is None and self.minutes is None:
            object.__setattr__(self, "steps", 1000)
        for name in ("steps", "batch", "length", "accumulate", "eval_every", "devices", "seed"):
            if not isinstance(getattr(self, name), int | None):
                raise InputError(f"`{name}` is {getattr(self, name)!r}; wanted a whole number.")
        for name in ("steps", "minutes", "batch", "length", "lr", "clip", "accumulate", "eval_every", "devices"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"`{name}` is {value}; wanted a number above 0.")
        for name in ("warmup", "final_lr", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}; wanted a part of one, e.g. 0.05.")
        if abs(self.seed) > MOST_SEED:
            raise InputError(f"`seed` is {self.seed}; wanted a whole number from -10¹² to 10¹².")
        for name in ("weight_decay", "balance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"`{name}` is {getattr(self, name)}; wanted 0 or more.")
        if self.strategy not in STRATEGIES:
            raise InputError(f"`strategy` is {self.strategy!r}. {nearest(self.strategy, STRATEGIES)}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"`optimizer` is {self.optimizer!r}. {nearest(self.optimizer, OPTIMIZERS)}")
        if self.optimizer == "muon" and self.strategy != "ddp":
            raise InputError("Muon needs whole matrices, and 'fsdp' shards them. Use the strategy 'ddp', or AdamW.")

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is behind, from 0 to 1, after `step` updates and `seconds` of training."""
        by_steps = step / self.steps if self.steps else 0.0
        by_clock = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_clock))

    def lr_at(self, progress: float) -> float:
        """The learning rate of the step that begins at `progress`."""
        if progress < self.warmup:
            # never zero, so that the first step counts
            return self.lr * max(progress / self.warmup, 0.02)
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]
