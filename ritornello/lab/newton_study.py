"""How many iterations Newton's method takes over time, against length and chaos; and a picture of them converging.

    python -m ritornello.lab.newton_study                      # the table of docs/newton.md
    python -m ritornello.lab.newton_study --picture newton.png

The cell is h ← tanh(W h + u), W of Gaussian numbers of deviation gain / √size, u of deviation 1: from forgetful to
chaotic as the gain grows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import nn

from ritornello._run import run
from ritornello.cell import Cell
from ritornello.method import Newton, Sequential
from ritornello.method.newton.trace import iterates
from ritornello.typing import Tensor

__all__ = ["TanhCell", "draw", "largest_exponent", "main", "table"]

SIZE = 32
GAINS = (0.5, 1.0, 1.5, 2.0, 2.5, 4.0)
LENGTHS = (256, 1024, 4096)
METHODS = {
    "plain": Newton(max_iterations=100, window=1 << 30),
    "window 64": Newton(max_iterations=100, window=64),
    "damping 1": Newton(max_iterations=100, window=1 << 30, damping=1.0),
    "quasi": Newton(max_iterations=100, window=1 << 30, jacobian="quasi"),
}


class TanhCell(Cell):
    """h_t = tanh(W h_{t−1} + u_t)."""

    def __init__(self, size: int, gain: float):
        super().__init__()
        self.state_shape = (size,)
        self.weight = nn.Parameter(gain * torch.randn(size, size, dtype=torch.float64) / size**0.5)

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(u + h @ self.weight.mT)


@torch.no_grad()
def largest_exponent(cell: Cell, x: Tensor) -> float:
    """The largest Lyapunov exponent along the trajectory of x (1, T, size), per step: how fast two states close to
    each other part (or meet, below 0), as the mean logarithm of |J_t v| for a v that follows, kept at length 1.

    Args:
        cell: of one state tensor.

    Source: Benettin et al. 1980, Meccanica 15, 9–20.
    """
    h, total = cell.initial_state(1, x), 0.0
    v = torch.linspace(1, 2, h.numel(), dtype=h.dtype, device=h.device).view_as(h)
    v = v / v.norm()
    for now in cell.drive(x).unbind(1):
        h, v = torch.func.jvp(lambda state, u=now: cell.step(u, state), (h,), (v,))[:2]
        if not v.any():
            return float("-inf")  # two states have met
        total += float(v.norm().log())
        v = v / v.norm()
    return total / x.shape[1]


@torch.no_grad()
def table(gains: tuple[float, ...] = GAINS, lengths: tuple[int, ...] = LENGTHS) -> Iterator[list[str]]:
    """Rows of gain, exponent, length and the iterations of each method; in brackets where it was not certified."""
    yield ["gain", "exponent", "T", *METHODS]
    for gain in gains:
        torch.manual_seed(0)
        cell = TanhCell(SIZE, gain)
        x = torch.randn(1, max(lengths), SIZE, dtype=torch.float64)
        exponent = largest_exponent(cell, x)
        for length in lengths:
            stats = [run(cell, x[:, :length], method=m).stats for m in METHODS.values()]
            told = [str(s["iterations"]) if s["certified"] else f"({s['iterations']})" for s in stats]
            yield [f"{gain:g}", f"{exponent:+.2f}", str(length), *told]


@torch.no_grad()
def draw(path: str, gain: float = 1.5, length: int = 200) -> None:
    """Draw the error of every iterate along the sequence, from the plain first guess h_t = f(0, u_t)."""
    from matplotlib import pyplot

    torch.manual_seed(0)
    cell, x = TanhCell(SIZE, gain), torch.randn(1, length, SIZE, dtype=torch.float64)
    want = run(cell, x, method=Sequential()).y
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, guess in enumerate(iterates(cell, x, x.new_zeros(1, SIZE), 11)):
        error = (guess - want).abs().amax(-1)[0].clamp(min=1e-17)
        axes.semilogy(error, color=pyplot.get_cmap("viridis")(number / 11), label=str(number), linewidth=1.2)
    axes.set(xlabel="time step", ylabel="largest error of the state", title=f"Newton's iterates, gain {gain:g}")
    axes.legend(title="iteration", ncols=2, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Iterations of Newton's method against length and chaos.")
    parser.add_argument("--picture", help="draw the iterates to this file instead of printing the table")
    parser.add_argument("--gains", type=float, nargs="+", default=GAINS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    chosen = parser.parse_args(arguments)
    if chosen.picture:
        draw(chosen.picture)
        return
    for number, row in enumerate(table(tuple(chosen.gains), tuple(chosen.lengths))):
        print("| " + " | ".join(row) + " |", flush=True)
        if number == 0:
            print("|" + "---|" * len(row))


if __name__ == "__main__":
    main()
