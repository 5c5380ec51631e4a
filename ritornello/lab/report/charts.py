"""The charts of a report: score against length, state, time and cost."""

from __future__ import annotations

from ritornello.lab.compare.contender import family, title
from ritornello.lab.report.summary import Cell, Summary
from ritornello.lab.report.svg import Axis, Series, lines, points

__all__ = ["hue", "sections"]

HUES = 8
"""Colours there are; the last one is of all families beyond."""

Figure = tuple[str, str, str]
"""Name, caption, SVG."""


def hue(summary: Summary, name: str) -> int:
    """The number of a family's colour."""
    return min(summary.families.index(name), HUES - 1)


def sections(summary: Summary) -> list[tuple[str, str, list[Figure]]]:
    """Heading, text and figures of each part."""
    tasks = [name for name in summary.tasks if summary.of_task(name)]
    return [
        (
            "Against length",
            "Trained at the shortest length shown, scored at all of them. Bands: 95 % intervals over the seeds.",
            [_against_length(summary, name) for name in tasks],
        ),
        (
            "Against the state",
            "What a layer must keep of a training sequence, and what it scores with it. Dotted: the frontier, beyond "
            "which no layer here gives more for less.",
            [_against_state(summary, name) for name in tasks],
        ),
        ("What it costs", "A training step with one sequence, in one process.", _costs(summary)),
        (
            "Learning curves",
            "The loss over the seconds of training, averaged over the seeds.",
            [_learning(summary, name) for name in tasks],
        ),
    ]


def _series(summary: Summary, cell: Cell, xy, band=(), note: str = "") -> Series:
    return Series(cell.layer, title(cell.layer), hue(summary, family(cell.layer)), xy, band, note)


def _against_length(summary: Summary, name: str) -> Figure:
    cells = summary.of_task(name)
    task = summary.tasks[name]
    lengths = sorted({length for cell in cells for length in cell.curve})
    x = Axis("length", lengths[0] / 1.06, lengths[-1] * 1.06, True, tuple(lengths))
    if task.about.metric == "accuracy":
        y = Axis("accuracy", 0.0, 1.0, False, (0.0, 0.25, 0.5, 0.75, 1.0))
    else:
        y = Axis.over("error", [m.value for c in cells for m in c.curve.values()], zero=True)
    drawn = [
        _series(summary, c, [(n, m.value) for n, m in c.curve.items()], [c.interval(m) for m in c.curve.values()])
        for c in sorted(cells, key=lambda c: -c.task.scaled(c.longest.value))
    ]
    return task.about.title, task.about.tests, lines(x, y, drawn, [(task.chance, "chance")])


def _against_state(summary: Summary, name: str) -> Figure:
    cells = summary.of_task(name)
    task = summary.tasks[name]
    x = Axis.over("bytes of state", [c.sweep["state_bytes"] for c in cells], log=True)
    y = Axis("from chance, 0, to the best, 1", 0.0, 1.0, False, (0.0, 0.25, 0.5, 0.75, 1.0))
    drawn = [
        _series(
            summary, c, [(c.sweep["state_bytes"], c.scaled(c.trained.value))],
            note=f"{c.trained.value:.3f} with {c.sweep['state_bytes']:,} bytes",
        )
        for c in cells
    ]  # fmt: skip
    return (
        task.about.title,
        f"At length {min(cells[0].curve)}.",
        points(x, y, drawn, _frontier([s.xy[0] for s in drawn])),
    )


def _frontier(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points that score more than all with as little state or less."""
    frontier: list[tuple[float, float]] = []
    for state, score in sorted(found, key=lambda p: (p[0], -p[1])):
        if not frontier or score > frontier[-1][1]:
            frontier.append((state, score))
    return frontier


def _costs(summary: Summary) -> list[Figure]:
    measured = {layer: summary.speeds[layer] for layer in summary.layers if layer in summary.speeds}
    if not measured:
        return []
    figures = []
    for key, label, name, caption in (
        ("tokens_per_second", "tokens a second", "Throughput", "Forward and backward, the best of several."),
        ("saved_bytes", "bytes", "Memory", "What the forward pass keeps for the backward pass, without weights."),
    ):
        lengths = list(next(iter(measured.values()))["lengths"])
        x = Axis("length", lengths[0] / 1.1, lengths[-1] * 1.1, True, tuple(lengths))
        y = Axis.over(label, [v for record in measured.values() for v in record[key]], log=True)
        drawn = [
            Series(n, title(n), hue(summary, family(n)), list(zip(r["lengths"], r[key], strict=True)))
            for n, r in measured.items()
        ]
        figures.append((name, caption, lines(x, y, drawn)))
    return figures


def _learning(summary: Summary, name: str) -> Figure:
    curves = {cell: curve for cell in summary.of_task(name) if len(curve := cell.losses()) > 1}
    task = summary.tasks[name]
    if not curves:
        return task.about.title, "Too few steps for a curve.", ""
    every = [p for curve in curves.values() for p in curve]
    x = Axis.over("seconds of training", [p[0] for p in every], zero=True)
    finite = [p[1] for p in every if p[1] == p[1] and p[1] < 1e6]
    y = Axis.over("loss", finite or [0.0, 1.0], zero=True)
    kept = [(c, [p for p in curve if y.low <= p[1] <= y.high]) for c, curve in curves.items()]
    drawn = [_series(summary, c, curve) for c, curve in kept if curve]
    return task.about.title, "", lines(x, y, drawn)
