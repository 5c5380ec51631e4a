"""The report as Markdown, and its scores as CSV."""

from __future__ import annotations

import csv
import io

from ritornello.lab.compare.contender import family, title
from ritornello.lab.compare.folder import Folder
from ritornello.lab.report.summary import Cell, Summary, published
from ritornello.lab.report.words import METHOD, findings, in_words, plural

__all__ = ["as_csv", "as_markdown"]


def as_markdown(folder: Folder, summary: Summary) -> str:
    """What came out and every figure, for a page or a pull request."""
    plan = summary.plan
    parts = [
        f"# {plural(plan.layers, 'layer')} on {plural(plan.tasks, 'task')}",
        f"    {folder.made['command'] or 'made by a program'}",
        "\n".join(f"- {line}" for line in findings(summary)),
        "## Scores",
        "Mean ± 95 % confidence interval over the seeds, at each length.",
        *(_task(summary, name) for name in summary.tasks if summary.of_task(name)),
        "## How it was made",
        in_words(plan),
        METHOD,
        ", ".join(f"{name} {version}" for name, version in folder.made["versions"].items()),
    ]
    if summary.failures:
        told = "\n".join(f"- {r['layer']}, {r.get('task', '')} {r['stage']}: {r['why']}" for r in summary.failures)
        parts += ["## What failed", told]
    return "\n\n".join(parts) + "\n"


def _task(summary: Summary, name: str) -> str:
    cells, task = summary.of_task(name), summary.tasks[name]
    lengths = list(cells[0].curve)
    heads = ["layer", *map(str, lengths), "published", "parameters", "state bytes", "steps"]
    rows = [
        [title(c.layer), *(_score(c, n) for n in lengths), _published(c), *_sizes(c)]
        for c in cells
    ]  # fmt: skip
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---", *["--:"] * (len(heads) - 1)], *rows)]
    return f"### {task.about.title} ({name}, {task.about.metric}; chance {task.chance:.3g})\n\n" + "\n".join(lines)


def _score(cell: Cell, length: int) -> str:
    mean, most = cell.curve[length], 1.0 if cell.task.about.metric == "accuracy" else float("inf")
    return f"{mean.value:.3f}" + ("" if mean.half_width is None else f" ± {min(mean.half_width, most):.3f}")


def _published(cell: Cell) -> str:
    figure = published(cell.task, cell.layer)
    return "" if figure is None else f"{figure.value:g} ({figure.measure})"


def _sizes(cell: Cell) -> list[str]:
    return [f"{cell.sweep['parameters']:,}", f"{cell.sweep['state_bytes']:,}", f"{cell.runs[0]['steps']:,}"]


def as_csv(summary: Summary) -> str:
    """A line for each run and length."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ["layer", "family", "task", "seed", "length", "score", "metric", "chance", "lr", "width", "parameters"]
    writer.writerow([*heads, "state_bytes", "steps", "tokens", "train_seconds"])
    for cell in (cell for task in summary.tasks for cell in summary.of_task(task)):
        for run in cell.runs:
            for length, score in run["scores"].items():
                writer.writerow([
                    cell.layer, family(cell.layer), cell.task.name, run["seed"], length, score, cell.task.about.metric,
                    cell.task.chance, run["lr"], run["width"], cell.sweep["parameters"], cell.sweep["state_bytes"],
                    run["steps"], run["tokens"], run["train_seconds"],
                ])  # fmt: skip
    return out.getvalue()
