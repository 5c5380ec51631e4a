"""What a task is: a rule that draws sequences with their answers, a metric, chance, and the protocol of its paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch.nn import functional as F

from ritornello.errors import InputError, nearest
from ritornello.typing import Tensor

__all__ = ["About", "Batch", "Figure", "Task", "Training"]

PRESETS = ("paper", "small")
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences with their answers.

    inputs: (B, T) int64 ids, or (B, T, F) floats.
    targets: (B, T) int64 classes, or (B, T, F') floats. That at t is what to say after reading inputs[:, : t + 1].
    mask: (B, T) bool, where loss and metric count; elsewhere targets are zero.
    allowed: (B, T, classes) bool, where several classes are right and the target is one of them; None elsewhere.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    allowed: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        allowed = None if self.allowed is None else self.allowed.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), self.mask.to(device), allowed)


@dataclass(frozen=True)
class About:
    """A task in words. `metric` is "accuracy" (a part of the steps that count) or "error" (mean squared)."""

    title: str
    paper: str
    tests: str
    metric: str = "accuracy"


@dataclass(frozen=True)
class Figure:
    """A published result: the score of a method, at which size, from where; `measure` where it is not the metric."""

    value: float
    size: str
    source: str
    measure: str = "accuracy"


@dataclass(frozen=True)
class Training:
    """What suffices for a layer that can learn the task: steps of AdamW, rows in a batch, learning rates to try."""

    steps: int
    batch: int
    learning_rates: tuple[float, ...]
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A rule that draws sequences on the fly. Its fields are the sizes of the protocol, by default the paper's.

        task = tasks.find("mqar").preset("small")
        batch = task.sample(64, generator=torch.Generator().manual_seed(0))
        loss = task.loss(model(batch.inputs), batch)
        task.score(task.solve(batch.inputs), batch)          # 1.0

    A task of one's own gives `name`, `about`, `small`, defaults for the three fields, `inputs`, `classes`, `_draw` and
    `solve`, and is put into the catalogue by `tasks.register`.

    Fields:
        train_length: the longest sequence of training.
        test_lengths: the lengths of the reported curve, from the training length on.
        training: what suffices to learn it.
    """

    name: ClassVar[str]
    about: ClassVar[About]
    kind: ClassVar[str] = "classify"  # or "regress"
    small: ClassVar[Mapping[str, Any]]  # the fields in which the small preset differs from the paper's
    published: ClassVar[Mapping[str, Figure]] = MappingProxyType({})  # method → its figure
    prefixes: ClassVar[bool] = False  # whether the first steps of a row are a shorter row, asked at the same steps

    train_length: int
    test_lengths: tuple[int, ...]
    training: Training

    @classmethod
    def preset(cls, preset: str = "paper", **fields: Any) -> Self:
        """The task in the sizes of its ``"paper"``, or in ``"small"`` ones, which tell good from bad in a minute.

        Args:
            preset: which.
            fields: what differs from it.

        Raises:
            InputError: no such preset or field, or sizes that do not fit each other.
        """
        if preset not in PRESETS:
            raise InputError(f"`preset` is {preset!r}. {nearest(preset, PRESETS)}")
        known = cls.__dataclass_fields__
        for name in fields:
            if name not in known:
                raise InputError(f"Task {cls.name!r} has no field {name!r}. {nearest(name, known)}")
        return cls(**{**(cls.small if preset == "small" else {}), **fields})

    # -------------------------------------------------------------------------------------------------------- sizes

    @property
    @abstractmethod
    def inputs(self) -> int:
        """The size of the vocabulary; features where the inputs are floats."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many classes a model must have; features of the targets where `kind` is "regress"."""

    @property
    def shortest(self) -> int:
        """The least length that can be drawn."""
        return 1

    @property
    def float_inputs(self) -> bool:
        """Whether inputs are floats (B, T, F) rather than ids."""
        return False

    @property
    def answers(self) -> range:
        """The classes that can be an answer."""
        return range(self.classes)

    @property
    def chance(self) -> float:
        """The score of `guess`: of the metric, at the training length."""
        return 1 / len(self.answers)

    @property
    def ceiling(self) -> float:
        """The best score that the inputs allow."""
        return 1.0 if self.about.metric == "accuracy" else 0.0

    # --------------------------------------------------------------------------------------------------------- data

    def sample(
        self, batch: int, length: int | None = None, *, generator: torch.Generator, split: str = "train"
    ) -> Batch:
        """Draw `batch` sequences.

        Args:
            batch: how many, at least 1.
            length: T exactly; where None what training reads, up to `train_length`, not the same in every call.
            generator: all of the randomness; a CPU generator.
            split: ``"train"`` or ``"test"``, which differ in tasks with a finite set of examples.

        Raises:
            InputError: a length below `shortest` or that the task cannot have, or no such split.
        """
        if split not in SPLITS:
            raise InputError(f"`split` is {split!r}; it takes 'train' or 'test'.")
        if batch < 1:
            raise InputError(f"`batch` is {batch}; wanted at least 1.")
        if length is not None and length < self.shortest:
            raise InputError(f"`length` is {length}; task {self.name!r} takes {self.shortest} and more.")
        drawn = self._draw(batch, length, generator, split)
        mask = drawn.mask if drawn.targets.dim() == 2 else drawn.mask.unsqueeze(-1)
        return Batch(drawn.inputs, torch.where(mask, drawn.targets, 0), drawn.mask, drawn.allowed)

    @abstractmethod
    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        """As `sample`, with checked arguments; targets where the mask is False do not matter."""

    @abstractmethod
    def solve(self, inputs: Tensor) -> Tensor:
        """The answers by the rule, (B, T) classes or (B, T, F') floats; steps that never count hold anything."""

    def guess(self, inputs: Tensor, *, generator: torch.Generator) -> Tensor:
        """Answers that do not look at the inputs: uniform over `answers`; zero where `kind` is "regress"."""
        if self.kind == "regress":
            return torch.zeros(*inputs.shape[:2], self.classes)
        return torch.randint(self.answers.start, self.answers.stop, inputs.shape[:2], generator=generator)

    def stage(self, progress: float) -> Self:
        """The task after a part of training, 0 to 1; itself where its protocol has no curriculum."""
        return self

    # ------------------------------------------------------------------------------------------------------- scores

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over the steps that count of cross-entropy in nats, or of the squared error.

        Args:
            outputs: (B, T, classes) logits, or the predicted floats.
            batch: what they answer.
        """
        wanted, got = batch.targets[batch.mask], outputs[batch.mask]
        return F.mse_loss(got, wanted.to(got.dtype)) if self.kind == "regress" else F.cross_entropy(got, wanted)

    def score(self, predictions: Tensor, batch: Batch) -> float:
        """The metric over the steps that count: the part that is right (or allowed), or the mean squared error.

        Where `prefixes` holds, rows longer than `train_length` are scored on the steps after it: those up to it are a
        row of training, which says nothing of longer ones.

        Args:
            predictions: (B, T) classes or (B, T, classes) logits; floats like the targets where `kind` is "regress".
            batch: what they answer.
        """
        if self.kind == "classify" and predictions.dim() == 3:
            predictions = predictions.argmax(-1)
        if predictions.shape != batch.targets.shape:
            raise InputError(
                f"`predictions` has shape {tuple(predictions.shape)}; wanted {tuple(batch.targets.shape)}, that of the "
                f"targets{', or logits of it' if self.kind == 'classify' else ''}."
            )
        mask = self._scored(batch.mask)
        got, wanted = predictions[mask], batch.targets[mask]
        if self.kind == "regress":
            return F.mse_loss(got.double(), wanted.double()).item()
        if batch.allowed is not None:
            return batch.allowed[mask].gather(1, got.unsqueeze(1)).double().mean().item()
        return (got == wanted).double().mean().item()

    def _scored(self, mask: Tensor) -> Tensor:
        """The steps that a score is of; all that count where none of them is beyond the training length."""
        beyond = mask & (torch.arange(mask.shape[1], device=mask.device) >= self.train_length)
        return beyond if self.prefixes and beyond.any() else mask

    def scaled(self, score: float) -> float:
        """A score between chance (0) and the best possible (1); below 0 where it is worse than chance."""
        return (score - self.chance) / (self.ceiling - self.chance)
