"""What a run tells: lines and a bar on the screen, curve.csv and curve.png, and TensorBoard's files if wanted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Log", "plot", "read_curve"]

COLUMNS = ("step", "seconds", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "heldout_bits_per_byte")


class Log:
    """A run's log in the folder `out`. A process that is not the first, or one without a folder, logs nothing.

    Args:
        out: where curve.csv is written.
        step: a resumed run goes on after this step; later rows, of work that was lost, are dropped.
        show: whether anything is put on the screen (standard error).
        tensorboard: write TensorBoard's files as well; needs tensorboardX.
    """

    def __init__(self, out: Path | None, step: int = 0, *, show: bool = True, tensorboard: bool = False):
        self.console = Console(stderr=True, quiet=not show, highlight=False)
        self._file = self._rows = self._board = None
        self._bar, self._task = None, None
        if out is None:
            return
        out.mkdir(parents=True, exist_ok=True)
        before = [row for row in read_curve(out / "curve.csv") if row["step"] <= step] if step else []
        self._file = open(out / "curve.csv", "w", newline="", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)
        for row in before:
            self._write(row)
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(out), purge_step=step)

    def __enter__(self) -> Log:
        if self.console.is_terminal and not self.console.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for closable in (self._file, self._board):
            if closable is not None:
                closable.close()
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def row(self, progress: float, **values: Any) -> None:
        """A point of the curve: some of `COLUMNS`."""
        self._write(values)
        if self._board is not None:
            for name, value in values.items():
                if name != "step":
                    self._board.add_scalar(name, value, values["step"])
        if self._bar is not None and self._task is not None and "loss" in values:
            rate = values["tokens_per_second"]
            text = f"step {values['step']}  loss {values['loss']:.3f}  {rate:,.0f} tokens/s"
            self._bar.update(self._task, completed=progress, description=text)

    def _write(self, values: dict[str, Any]) -> None:
        if self._rows is not None:
            cells = (values.get(name, "") for name in COLUMNS)
            self._rows.writerow(f"{cell:.6g}" if isinstance(cell, float) and cell % 1 else cell for cell in cells)


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The rows of a curve.csv, with numbers for text; none where there is no such file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = []
        for row in csv.DictReader(file):
            try:  # a kill may have cut the last line
                numbers = {name: float(value) for name, value in row.items() if value and name in COLUMNS}
                rows.append(numbers | {"step": int(numbers["step"])})
            except (KeyError, ValueError):
                break
        return rows


def plot(out: Path) -> Path | None:
    """Draw curve.csv as curve.png. Without matplotlib: None."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = read_curve(out / "curve.csv")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, style in (("loss", "-"), ("heldout_bits_per_byte", "o-")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), markersize=4, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token / bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out / "curve.png", dpi=120)
    return out / "curve.png"
