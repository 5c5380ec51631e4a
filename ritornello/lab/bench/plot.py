"""Time per token against the length of the sequence, ours beside softmax attention."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import torch

from ritornello.errors import InputError
from ritornello.lab.bench.matrix import SIZES, attention, gated, gla_inputs
from ritornello.lab.bench.timing import Budget, interleave

__all__ = ["draw_curve", "per_token", "require_matplotlib"]


def require_matplotlib(what: str = "`--plot`") -> None:
    """Ask for it before anything is measured; `what` needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{what} needs matplotlib, which is not installed. Run: pip install 'ritornello[plot]'"
        ) from error


@torch.no_grad()
def per_token(lengths: list[int], budget: Budget) -> list[tuple[int, float, float]]:
    """(T, ours, attention's), microseconds per token of the forward pass, at the sizes of the table."""
    points = []
    for steps in lengths:
        inputs = gla_inputs(SIZES | {"T": steps})
        heads_first = [x.transpose(1, 2).contiguous() for x in inputs[:3]]
        timing = interleave(lambda i=inputs: gated(*i)[0], lambda h=heads_first: attention(*h), budget)
        points.append((steps, *(median(times) / steps * 1e6 for times in (timing.ours, timing.peer))))
    return points


def draw_curve(points: list[tuple[int, float, float]], path: Path) -> None:
    """Write the PNG."""
    from matplotlib.figure import Figure  # without pyplot: no display is needed, nothing is kept

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    lengths, ours, softmax = zip(*points, strict=True)
    axes.loglog(lengths, softmax, "o-", color="tab:gray", label="causal softmax attention (PyTorch's SDPA)")
    axes.loglog(lengths, ours, "o-", color="tab:purple", label="gated linear attention (Ritornello)")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("tokens in the sequence, T")
    axes.set_ylabel("microseconds per token, forward")
    axes.set_title(f"H {SIZES['H']}, K {SIZES['K']}, V {SIZES['V']}, float32, {torch.get_num_threads()} CPU threads")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(path, dpi=150, format="png")
