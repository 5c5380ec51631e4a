"""A published claim that small runs can test: what is trained, what must come out, and what did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["CONFIRMED", "REFUTED", "Claim", "Finding", "Row", "Trial"]

CONFIRMED, REFUTED = "as published", "not as published"

Row = tuple[str, str, Sequence[float], bool]

OPTIONAL = ("passing", "kept_from")
"""What is in the work of a run only where it applies."""

SCORING = 2
"""Is raised when the same run would be scored otherwise, so that kept runs of before are done again."""

RATES = (1e-2, 3e-3)
"""Learning rates that every contender is given; its better one counts, whether it should succeed or fail. What one of
them has settled, that it does succeed, the next is not asked for."""


@dataclass(frozen=True)
class Trial:
    """A contender and what it must reach.

    Args:
        layer: as `ritornello compare` takes it.
        at_least, at_most: of the score's median over the seeds; it goes from chance, 0, to the best possible, 1.
        above: another contender's number in the claim, and how far above its median this one's must be.
        fields: of the task, where they differ from the claim's.
        name: for a reader; the layer where empty.
        length: at which is scored, where it differs from the claim's.
        passing: whether training begins in the states in which other sequences ended (`StatePassing`).
    """

    layer: str
    at_least: float | None = None
    at_most: float | None = None
    above: tuple[int, float] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    length: int | None = None
    passing: bool = False

    @property
    def title(self) -> str:
        return self.name or self.layer

    @property
    def wanted(self) -> str:
        if self.above is not None:
            return f"+ {self.above[1]:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def settled(self, score: float) -> bool:
        """Whether no better score could change what is found."""
        if self.above is not None:  # how high that is, is not known before the other one is done
            return False
        return score >= self.at_least if self.at_least is not None else not self.met(score)

    def met(self, score: float) -> bool:
        return (self.at_least is None or score >= self.at_least) and (self.at_most is None or score <= self.at_most)


@dataclass(frozen=True)
class Claim:
    """What was claimed, and the runs that test it.

    Args:
        name: by which it is called.
        claimed: the claim, in a sentence.
        source: where.
        task: its small preset, with `fields`.
        length: at which is scored.
        kept_from: a length; the score is the part of the score there that is left at `length`.
        trials: the contenders.
        steps: of each training.
        depth, width: of the models.
        note: what differs from the source, or why it may come out otherwise.
    """

    name: str
    claimed: str
    source: str
    task: str
    length: int
    trials: Sequence[Trial]
    steps: int
    depth: int = 2
    width: int = 64
    fields: Mapping[str, Any] = field(default_factory=dict)
    rates: Sequence[float] = RATES
    note: str = ""
    kept_from: int | None = None

    def work(self, seeds: int) -> list[dict[str, Any]]:
        """The runs, for the workers."""
        return [
            {
                "kind": "learn", "claim": self.name, "trial": i, "layer": trial.layer, "task": self.task,
                "fields": {**self.fields, **trial.fields}, "length": trial.length or self.length, "steps": self.steps,
                "depth": self.depth, "width": self.width, "lr": lr, "seed": seed, "scoring": SCORING,
                **({"passing": True} if trial.passing else {}),
                **({"kept_from": self.kept_from} if self.kept_from else {}),
            }
            for i, trial in enumerate(self.trials)
            for lr in self.rates
            for seed in range(seeds)
        ]  # fmt: skip

    def needs(self, work: Mapping[str, Any], results: Sequence[Mapping[str, Any]], seeds: int) -> bool:
        """Whether a run can change what is found, given those that are done."""
        others = self._by_rate(results, work["trial"])
        others.pop(work["lr"], None)
        trial = self.trials[work["trial"]]
        return not any(len(scores) >= seeds and trial.settled(median(scores)) for scores in others.values())

    def _met(self, i: int, best: Mapping[int, Sequence[float]]) -> bool:
        """Whether a contender is where it should be, of all that are done."""
        trial, score = self.trials[i], median(best[i])
        if trial.above is None:
            return trial.met(score)
        other, margin = trial.above
        return other in best and score >= median(best[other]) + margin

    @staticmethod
    def _by_rate(results: Sequence[Mapping[str, Any]], trial: int) -> dict[float, list[float]]:
        found: dict[float, list[float]] = {}
        for result in (r for r in results if r["trial"] == trial):
            found.setdefault(result["lr"], []).append(result["score"])
        return found

    def judge(self, results: Sequence[Mapping[str, Any]], problems: Sequence[str] = ()) -> Finding:
        """Compare what came out with what was claimed."""
        found = {i: self._by_rate(results, i) for i in range(len(self.trials))}
        best = {i: max(by_rate.values(), key=median) for i, by_rate in found.items() if by_rate}
        rows = [(self.trials[i].title, self.trials[i].wanted, scores, self._met(i, best)) for i, scores in best.items()]
        return Finding.of(self.name, rows, len(self.trials), problems)


@dataclass(frozen=True)
class Finding:
    """What came out of a claim.

    Args:
        rows: for each trial its title, what was wanted, the scores of the seeds at its better rate, and whether met.
        verdict: CONFIRMED or REFUTED; None where runs are missing.
        problems: what kept runs from ending.
    """

    claim: str
    rows: Sequence[Row]
    verdict: str | None
    problems: Sequence[str] = ()

    @staticmethod
    def of(claim: str, rows: Sequence[Row], wanted: int, problems: Sequence[str]) -> Finding:
        """The finding of some rows, of which there should be `wanted`."""
        if len(rows) < wanted:
            return Finding(claim, rows, None, problems)
        return Finding(claim, rows, CONFIRMED if all(met for *_, met in rows) else REFUTED, problems)
