"""What a report says in sentences, whatever the format."""

from __future__ import annotations

from collections.abc import Sized

from ritornello.lab.compare.budget import SWEEP, Budget
from ritornello.lab.compare.contender import REFERENCE, WIDEST, title
from ritornello.lab.compare.plan import Plan
from ritornello.lab.report.summary import Cell, Summary

__all__ = ["METHOD", "findings", "in_words", "plural"]

SOLVED, NEAR_CHANCE = 0.95, 0.1
"""Scaled scores from which a task counts as solved, and up to which as not learnt."""

METHOD = (
    "Learning rates are those of the task, found by successive halving on the loss of fresh training data with seed 0; "
    "AdamW, gradients clipped at norm 1, a linear warm-up and half a cosine. All layers stand in the same pre-norm "
    "blocks with a gated MLP, and are scored on the same sequences at every length. Intervals are Student's t over the "
    "seeds, which differ in weights and in data: with three of them they are wide, and two layers whose intervals meet "
    "are not told apart."
)


def in_words(plan: Plan) -> str:
    """The protocol of a plan."""
    budget = Budget.parse(plan.budget)
    if budget.unit == "s":
        spent = (
            f"Each layer has {budget} of this machine for each task: {SWEEP:.0%} for the sweep of learning rates, and "
            f"the rest for {plan.seeds} seeds and their scores. How many tokens it reads follows from its measured "
            "throughput (the Languini protocol, arXiv:2309.11197)."
        )
    else:
        spent = f"Each seed trains for {budget}; the sweep of learning rates comes on top."
    if plan.equal == "compute":
        return f"{spent} All models have width {plan.width}."
    what = "parameters as" if plan.equal == "parameters" else "bytes of state, after a training sequence, as"
    return (
        f"{spent} Widths are chosen by bisection so that all models have as many {what} {REFERENCE[plan.equal]} at "
        f"width {plan.width}, as nearly as multiples of 8 up to {WIDEST * plan.width} allow; what came out stands in "
        "the table."
    )


def plural(things: Sized, name: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def findings(summary: Summary) -> list[str]:
    """For each task who leads, how many solve it, and how many do not begin to."""
    return [_finding(summary, task) for task in summary.tasks if summary.of_task(task)] or ["No run is finished yet."]


def _finding(summary: Summary, name: str) -> str:
    cells, leaders = summary.of_task(name), summary.leaders(name)
    best, *alike = leaders
    task = summary.tasks[name]
    solved = sum(_scaled(c) >= SOLVED for c in cells)
    lost = sum(_scaled(c) <= NEAR_CHANCE for c in cells)
    if lost == len(cells):
        found = f"At length {min(best.curve)} none of {plural(cells, 'layer')} leaves chance within this budget."
        return f"{task.about.title}: {found}".replace("none of 1 layer leaves", "the one layer does not leave")
    longer = max(cells, key=lambda c: c.task.scaled(c.longest.value))
    score = _told(best, best.trained.value)
    text = f"{task.about.title}: {title(best.layer)} leads with {score} at length {min(best.curve)}"
    if alike:
        text += f"; {len(alike)} other{'s are' if len(alike) > 1 else ' is'} not told apart from it"
    text += f". {solved} of {len(cells)} {'solves' if solved == 1 else 'solve'} it (95 % of the way from chance)"
    text += f", {lost} {'stays' if lost == 1 else 'stay'} at chance."
    if max(longer.curve) > min(longer.curve):
        score = _told(longer, longer.longest.value)
        text += f" At length {max(longer.curve)} the best is {title(longer.layer)} with {score}."
    return text


def _scaled(cell: Cell) -> float:
    return cell.scaled(cell.trained.value)


def _told(cell: Cell, value: float) -> str:
    return f"{100 * value:.1f} %" if cell.task.about.metric == "accuracy" else f"an error of {value:.3g}"
