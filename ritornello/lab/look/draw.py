"""Pictures of what was found, as PNG files on a light ground, and the coloured text as a page."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ritornello.lab.look.page import surprise_page
from ritornello.lab.look.read import marks, read_off
from ritornello.lab.look.view import Look, View, by_lag
from ritornello.typing import Tensor

__all__ = ["draw", "heat"]

HEADS = 8  # that are drawn of a layer
COLOURS = ("#5b3a9e", "#d9822b", "#2b8a8a", "#c23b5a", "#4878c8", "#7a7a2a", "#8a5a44", "#606060")
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white", "text.color": "#222222",
    "font.size": 8.5, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#888888", "axes.labelcolor": "#333333", "xtick.color": "#555555", "ytick.color": "#555555",
    "axes.titlelocation": "left",
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "lines.linewidth": 1.2, "legend.frameon": False,
}  # fmt: skip


def draw(found: Look, folder: Path, what: Sequence[str]) -> list[Path]:
    """Write the pictures of `what` (see `WHAT`) into a folder that exists, and tell their paths.

    ``attention-N.png`` for every layer; ``norms.png``, ``memory.png``, ``eigenvalues.png``, ``gates.png`` of all of
    them; ``surprise.png``, and the same as a page, ``surprise.html``.
    """
    written: list[Path] = []
    for view in found.layers:
        if "attention" in what and view.attention is not None:
            with _picture(folder / f"attention-{view.index}.png", written) as figure:
                _attention(figure, view, view.attention, found.pieces)
    panels: list[tuple[str, str, Callable[[View], Any], Callable[[Any, View], None]]] = [
        ("norms", "norms", lambda v: v.norms is not None, _norms),
        ("norms", "memory", lambda v: v.attention is not None, _memory),
        ("eigenvalues", "eigenvalues", lambda v: v.eigenvalues is not None, _eigenvalues),
        ("gates", "gates", lambda v: v.gates, _gates),
    ]
    for wanted, name, has, panel in panels:
        views = [v for v in found.layers if has(v)]
        if wanted in what and views:
            with _picture(folder / f"{name}.png", written) as figure:
                for axes, view in zip(_grid(figure, len(views)), views, strict=True):
                    axes.set_title(_title(view))
                    panel(axes, view)
    if "surprise" in what:
        with _picture(folder / "surprise.png", written) as figure:
            _surprise(figure, found)
        page = folder / "surprise.html"
        page.write_text(surprise_page(found), encoding="utf-8")
        written.append(page)
    return written


@contextmanager
def _picture(path: Path, written: list[Path]) -> Iterator[Any]:
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot: no display is needed, nothing is kept

    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        yield figure
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # of a script that the font lacks: a box stands there
            figure.savefig(path, dpi=120, format="png")
    written.append(path)


def _grid(figure: Any, count: int, size: tuple[float, float] = (3.4, 2.5), most: int = 3) -> list[Any]:
    columns = min(count, most)
    rows = -(-count // columns)
    figure.set_size_inches(max(4.2, size[0] * columns), size[1] * rows)
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _title(view: View) -> str:
    return f"layer {view.index}  {view.kind}"


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _attention(figure: Any, view: View, matrix: Tensor, pieces: list[str]) -> None:
    matrix = matrix[:HEADS].float()
    steps = matrix.shape[-1]
    future = torch.ones(steps, steps, dtype=torch.bool).triu(1)
    past = matrix[:, ~future]
    signed = bool(past.min() < -1e-6 * past.abs().max())
    limit = torch.quantile(past.abs().flatten()[:: max(1, past.numel() // 10**6)], 0.995).item() or 1.0
    colours = (
        {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "Purples", "vmin": 0, "vmax": limit}
    )
    grid = _grid(figure, len(matrix), (3.6, 3.4), 4)
    image = None
    for head, axes in enumerate(grid):
        image = axes.imshow(matrix[head].masked_fill(future, math.nan).numpy(), interpolation="nearest", **colours)
        axes.set_title(f"head {head}" if len(matrix) > 1 else "")
        axes.set_xlabel("read: token s")
        axes.set_ylabel("at token t")
        if steps <= 40:
            axes.set_xticks(range(steps), marks(pieces), fontsize=6, family="monospace", parse_math=False)
            axes.set_yticks(range(steps), marks(pieces), fontsize=6, family="monospace", parse_math=False)
    nonlinear = "gates" in view.missing and "nonlinear" in view.missing["gates"]
    label = "‖∂o_t / ∂x_s‖" if nonlinear else "weight of v_s in o_t"
    figure.colorbar(image, ax=grid, label=label, shrink=0.8, extend="both" if signed else "max")
    figure.suptitle(_title(view), x=0.01, ha="left", fontsize=10)


def _norms(axes: Any, view: View) -> None:
    assert view.norms is not None
    for head, (line, colour) in enumerate(zip(view.norms[:HEADS], _colours(HEADS), strict=False)):
        axes.plot(line.numpy(), color=colour, label=f"head {head}")
    axes.set_xlabel("token t")
    axes.set_ylabel("state norm ‖h_t‖")
    axes.set_ylim(bottom=0)
    axes.grid(True)
    _legend(axes, len(view.norms))


def _memory(axes: Any, view: View) -> None:
    """The mean influence, or weight of attention relative to the largest, at each lag."""
    matrix = view.influence if view.influence is not None else view.attention
    assert matrix is not None and view.horizon is not None
    lines = by_lag(matrix[:HEADS].abs())[:, : max(2, matrix.shape[-1] * 9 // 10)]  # of the last lags there is little
    if view.influence is None:
        lines = lines / lines.max(-1, keepdim=True).values
    for head, (line, colour) in enumerate(zip(lines, _colours(HEADS), strict=False)):
        axes.semilogy(line.masked_fill(line < 1e-4, math.nan).numpy(), color=colour, label=f"head {head}")
    axes.axhline(math.exp(-1), color="#999999", linewidth=0.8, linestyle="--")
    axes.text(1.0, math.exp(-1), "1/e ", color="#777777", ha="right", va="bottom", transform=axes.get_yaxis_transform())
    axes.set_xlim(0, lines.shape[-1] - 1)
    axes.set_ylim(1e-4, max(2.0, 1.5 * lines.max().item()))
    axes.set_xlabel("lag, tokens")
    axes.set_ylabel("‖∂h_t / ∂h_{t−lag}‖" if view.influence is not None else "mean weight / largest")
    axes.grid(True)
    _legend(axes, len(lines))


def _eigenvalues(axes: Any, view: View) -> None:
    assert view.eigenvalues is not None
    values = view.eigenvalues
    if values.imag.abs().max() < 1e-5:
        groups = [v.real.flatten().numpy() for v in values[:HEADS]]
        low, high = min(0.0, values.real.min().item()), max(1.0, values.real.max().item())
        axes.hist(
            groups, bins=torch.linspace(low, high, 41).tolist(), stacked=True, color=_colours(len(groups)),
            label=[f"head {i}" for i in range(len(groups))],
        )  # fmt: skip
        axes.set_yscale("symlog", linthresh=10)
        axes.set_xlabel("eigenvalue, all real")
        axes.set_ylabel("count")
        _legend(axes, len(values))
        return
    turn = torch.linspace(0, 2 * math.pi, 200)
    axes.plot(turn.cos().numpy(), turn.sin().numpy(), color="#aaaaaa", linewidth=0.8)
    for head, colour in zip(values[:HEADS], _colours(HEADS), strict=False):
        flat = head.flatten()
        flat = flat[:: max(1, len(flat) // 4000)]
        axes.scatter(flat.real.numpy(), flat.imag.numpy(), s=4, color=colour, alpha=0.35, linewidths=0)
    reach = max(1.1, 1.1 * values.abs().max().item())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="real part", ylabel="imaginary part")
    axes.grid(True)


def _gates(axes: Any, view: View) -> None:
    for (name, gate), colour in zip(view.gates.items(), COLOURS, strict=False):
        values = gate.flatten().float()
        values = values[:: max(1, len(values) // 100_000)]
        low, high = values.min().item(), values.max().item()
        low, high = (min(low, 0.0), max(high, 1.0)) if low >= -1 and high <= 2 else (low, high)
        weights, bins = [100 / len(values)] * len(values), torch.linspace(low, high, 41).tolist()
        axes.hist(values.numpy(), bins=bins, weights=weights, color=colour, alpha=0.7, label=name)
    axes.set_xlabel("value of the gate")
    axes.set_ylabel("% of tokens × channels")
    axes.legend()


def _legend(axes: Any, heads: int) -> None:
    if heads > 1:
        axes.legend(fontsize=7, ncols=2)


def _surprise(figure: Any, found: Look, columns: int = 64) -> None:
    """The text in a grid of characters, each on the colour of its token's surprise."""
    cells = [(letter, bits) for piece, bits in read_off(found) for letter in marks([piece])[0]]
    rows = -(-len(cells) // columns)
    table = torch.full((rows * columns,), math.nan)
    table[: len(cells)] = torch.tensor([bits for _, bits in cells])
    figure.set_size_inches(9.5, 1.1 + 0.28 * rows)
    axes = figure.add_subplot()
    limit = max(8.0, found.surprise.nan_to_num(0).max().item())
    image = axes.imshow(table.view(rows, columns).numpy(), cmap="YlOrRd", vmin=0, vmax=limit, aspect="auto")
    for i, (letter, bits) in enumerate(cells):
        dark = bits > 0.7 * limit
        axes.text(
            i % columns, i // columns, letter, ha="center", va="center", family="monospace", fontsize=9,
            parse_math=False, color="white" if dark else "#222222",
        )  # fmt: skip
    axes.set_axis_off()
    mean = found.surprise[~found.surprise.isnan()].mean().item()
    axes.set_title(f"surprise, −log₂ p of each token; mean {mean:.2f} bits")
    figure.colorbar(image, ax=axes, label="bits", shrink=1.0, pad=0.01)


def heat(bits: float) -> str:
    """The colour of a surprise on a terminal, #rrggbb: from pale yellow at 0 to red at 12 bits."""
    share = min(1.0, bits / 12)
    ends = (255, 250, 205), (240, 90, 70)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))
