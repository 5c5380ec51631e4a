"""The report as one HTML page that needs no network: what came out first, how it was made last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from importlib.resources import files

from ritornello.lab.compare.contender import family, title
from ritornello.lab.compare.folder import Folder
from ritornello.lab.report import charts
from ritornello.lab.report.summary import Cell, Summary, published
from ritornello.lab.report.svg import short
from ritornello.lab.report.words import METHOD, findings, in_words, plural
from ritornello.tasks import Figure

__all__ = ["page"]

VIEWS = {"trained": "at the training length", "longest": "at the longest", "mean": "mean over lengths"}
STRONG = 0.55
"""From here on a cell of the heat map is so dark that its text is white."""

LONG = 24
"""A table of more rows scrolls below its headings."""


def page(folder: Folder, summary: Summary) -> str:
    """The whole page."""
    plan = summary.plan
    names = ", ".join(task.about.title for task in summary.tasks.values())
    body = [
        f"<h1>{plural(plan.layers, 'layer')} on {plural(plan.tasks, 'task')}</h1>",
        f'<p class="soft">{escape(names)}</p>',
        _facts(summary),
        f"<pre>{escape(folder.made['command'] or 'made by a program')}</pre>",
        '<h2>What came out</h2><ul class="found">'
        + "".join(f"<li>{escape(t)}</li>" for t in findings(summary))
        + "</ul>",
        _legend(summary),
        "<h2>Layers by tasks</h2>",
        _heat_map(summary),
        *(_charts(*section) for section in charts.sections(summary)),
        "<h2>All figures</h2><p>Mean and 95 % confidence interval over the seeds. Click a heading to sort.</p>",
        _table(summary),
        _published(summary),
        _failures(summary),
        _made(folder, summary),
    ]
    style, script = (
        files("ritornello.lab.report").joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "script.js")
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ritornello: {plural(plan.layers, 'layer')}, {escape(', '.join(plan.tasks))}</title>"
        f"<style>{style}</style></head>\n<body><main>{''.join(body)}</main><script>{script}</script></body></html>\n"
    )


def _facts(summary: Summary) -> str:
    plan = summary.plan
    facts = [
        (f"{summary.runs_done} of {summary.runs_wanted}", "runs finished"),
        (plan.budget, "for a layer on a task" if plan.budget.endswith("s") and "step" not in plan.budget else "a seed"),
        (plan.equal, "is equal"),
        (str(plan.seeds), "seeds"),
        (plan.preset, "sizes of the tasks"),
        (f"{plan.width} × {plan.depth}", "width × blocks"),
    ]
    return '<ul class="facts">' + "".join(f"<li><b>{escape(b)}</b>{escape(t)}</li>" for b, t in facts) + "</ul>"


def _legend(summary: Summary) -> str:
    """A chip for each colour: a family, or several that share the last one."""
    of_hue: dict[int, list[str]] = {}
    for name in summary.families:
        of_hue.setdefault(charts.hue(summary, name), []).append(name)
    chips = (
        f'<span class="f{hue}" data-hue="{hue}"><span class="swatch"></span>{escape(", ".join(names))}</span>'
        for hue, names in of_hue.items()
    )
    return f'<div class="legend">{"".join(chips)}</div>'


def _layer_cell(summary: Summary, layer: str) -> str:
    hue = charts.hue(summary, family(layer))
    name = escape(title(layer)).replace("_", "_<wbr>")  # a phone has no room for forgetting_attention
    return f'<td class="f{hue}"><span class="swatch"></span>{name}</td>'


# -------------------------------------------------------------------------------------------------------------- tables


def _rows(heads: Iterable[str], rows: Iterable[str], words: tuple[int, ...] = (), kind: str = "") -> str:
    cells = (
        f"<th{' class=words' if i in words else ''}><button>{escape(head)}</button></th>"
        for i, head in enumerate(heads)
    )
    return (
        f'<div class="scroll {kind}"><table class="sortable"><thead><tr>{"".join(cells)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heat_map(summary: Summary) -> str:
    buttons = "".join(
        f'<button type="button" data-view="{view}" aria-pressed="{str(view == "trained").lower()}">{name}</button>'
        for view, name in VIEWS.items()
    )
    rows = []
    for layer in summary.layers:
        cells = "".join(_heat(summary.cells.get((layer, task))) for task in summary.tasks)
        rows.append(f'<tr data-layer="{escape(layer, quote=True)}">{_layer_cell(summary, layer)}{cells}</tr>')
    heads = ["layer", *summary.plan.tasks]
    return (
        "<p>Colour: from chance (pale) to the best possible (full). Beside each score, half its 95 % interval.</p>"
        f'<div class="switch" role="group">{buttons}</div>{_rows(heads, rows, kind="map")}'
    )


def _heat(cell: Cell | None) -> str:
    if cell is None:
        return '<td class="none" data-v="">–</td>'
    mean = sum(m.value for m in cell.curve.values()) / len(cell.curve)
    views = {
        "trained": _view(cell, cell.trained.value, cell.trained.half_width),
        "longest": _view(cell, cell.longest.value, cell.longest.half_width),
        "mean": _view(cell, mean, None),
    }
    text, share, note = views["trained"].split("|")
    strong = " strong" if float(share) > STRONG else ""
    data = " ".join(f'data-{name}="{view}"' for name, view in views.items())
    return f'<td class="heat{strong}" style="--s:{share}" data-v="{share}" {data}>{text}<small>{note}</small></td>'


def _view(cell: Cell, value: float, half: float | None) -> str:
    note = "" if half is None else f"± {_half(cell, half)}"
    return f"{_score(cell, value)}|{cell.scaled(value):.3f}|{note}"


def _score(cell: Cell, value: float) -> str:
    return f"{100 * value:.1f}" if cell.task.about.metric == "accuracy" else f"{value:.3g}"


def _table(summary: Summary) -> str:
    heads = [
        "layer", "task", "at training length", "±", "at the longest", "±", "published", "parameters", "state bytes",
        "width", "rate", "steps", "tokens", "seconds a seed",
    ]  # fmt: skip
    rows = []
    for cell in (cell for task in summary.tasks for cell in summary.of_task(task)):
        run = cell.runs[0]
        figure = published(cell.task, cell.layer)
        values: list[tuple[str, object]] = [
            (_score(cell, cell.trained.value), cell.trained.value),
            (_half(cell, cell.trained.half_width), cell.trained.half_width),
            (_score(cell, cell.longest.value), cell.longest.value),
            (_half(cell, cell.longest.half_width), cell.longest.half_width),
            (_figure(cell, figure), figure.value) if figure else ("", ""),
            (f"{cell.sweep['parameters']:,}", cell.sweep["parameters"]),
            (f"{cell.sweep['state_bytes']:,}", cell.sweep["state_bytes"]),
            (str(run["width"]), run["width"]),
            (f"{run['lr']:g}", run["lr"]),
            (f"{run['steps']:,}", run["steps"]),
            (short(run["tokens"]), run["tokens"]),
            (f"{run['seconds']:.1f}", run["seconds"]),
        ]
        tail = "".join(f'<td data-v="{"" if v is None else v}">{text}</td>' for text, v in values)
        name = f"<td>{escape(cell.task.name)}</td>"
        rows.append(
            f'<tr data-layer="{escape(cell.layer, quote=True)}">{_layer_cell(summary, cell.layer)}{name}{tail}</tr>'
        )
    return _rows(heads, rows, kind="long" if len(rows) > LONG else "")


def _half(cell: Cell, half: float | None) -> str:
    """Half an interval in the unit of `_score`, an accuracy's no wider than all there is; of an error two digits."""
    if half is None:
        return ""
    return _score(cell, min(half, 1.0)) if cell.task.about.metric == "accuracy" else f"{half:.2g}"


def _figure(cell: Cell, figure: Figure) -> str:
    """A published figure in the unit of `_score`, with what it measures where that is something else."""
    if figure.measure == cell.task.about.metric:
        return _score(cell, figure.value)
    return f"<small>{escape(figure.measure)}</small> {figure.value:g}"


def _published(summary: Summary) -> str:
    rows = [
        f'<tr><td>{escape(method)}</td><td>{escape(name)}</td><td data-v="{f.value}">{f.value:g}</td>'
        f'<td class="words">{escape(f.measure)}, {escape(f.size)}</td><td class="words">{escape(f.source)}</td></tr>'
        for name, task in summary.tasks.items()
        for method, f in task.published.items()
    ]
    if not rows:
        return ""
    heads = ["method", "task", "published", "of what", "source"]
    return (
        "<h2>Published figures</h2><p>Of larger models that were trained for longer, with the measures of their "
        "papers: the order of the layers may be compared with this report, the numbers not.</p>"
        + _rows(heads, rows, (3, 4))
    )


def _failures(summary: Summary) -> str:
    if not summary.failures:
        return ""
    rows = (
        f"<tr><td>{escape(title(r['layer']))}</td><td>{escape(r.get('task', ''))}</td><td>{r.get('seed', '')}</td>"
        f'<td>{r["stage"]}</td><td class="words">{escape(r["why"])}</td></tr>'
        for r in summary.failures
    )
    table = _rows(["layer", "task", "seed", "stage", "why"], rows, (4,))
    return f"<h2>What failed</h2><p>Run the same command again to try it once more.</p>{table}"


# ------------------------------------------------------------------------------------------------------------ the rest


def _charts(heading: str, text: str, figures: list[tuple[str, str, str]]) -> str:
    drawn = "".join(
        f"<figure><h3>{escape(name)}</h3><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        for name, caption, svg in figures
    )
    return f'<h2>{escape(heading)}</h2><p>{escape(text)}</p><div class="charts">{drawn}</div>' if figures else ""


def _made(folder: Folder, summary: Summary) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in folder.made["versions"].items())
    machine = folder.made["machine"]
    where = f"{machine['processor']}, {summary.plan.workers} processes; kernels for {machine['isa'] or 'none'}"
    about = "".join(
        f"<li><b>{escape(t.about.title)}</b> ({escape(name)}; chance {t.chance:.3g}): {escape(t.about.tests)} "
        f"{escape(t.about.paper)}.</li>"
        for name, t in summary.tasks.items()
    )
    text: Callable[[str], str] = lambda words: f"<p>{escape(words)}</p>"  # noqa: E731
    return (
        f"<h2>How it was made</h2>{text(in_words(summary.plan))}{text(METHOD)}<ul class='found'>{about}</ul>"
        f"<footer>{escape(versions)}. {escape(where)}. Every run is a line of <code>results.jsonl</code> beside this "
        "page; the tables are in <code>report.md</code> and <code>scores.csv</code>.</footer>"
    )
