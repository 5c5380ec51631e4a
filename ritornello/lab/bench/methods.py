"""Cells × sizes: the methods beside each other and beside what `Auto` chooses. Numbers are checked first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

from ritornello._run import run
from ritornello.cell import Cell
from ritornello.cells import ElmanCell, LSTMCell, ParaGRUCell
from ritornello.lab.bench.case import Comparison, verify
from ritornello.lab.bench.timing import Budget, in_turns
from ritornello.method import Auto, Compiled, Fused, Method, Newton, Sequential
from ritornello.typing import Tensor

__all__ = ["CELLS", "SIZES", "Line", "MixingCell", "measure_methods", "method_lines"]

SIZES = ((1, 256, 64), (4, 4096, 256), (1, 16384, 64))
ROUNDS, SECONDS = 3, 3.0


class MixingCell(Cell):
    """An element-wise cell as a user writes one: z = σ(u + w ⊙ h), h ← (1 − z) ⊙ h + z ⊙ tanh(u − h)."""

    def __init__(self, width: int):
        super().__init__()
        self.state_shape = (width,)
        self.weight = torch.nn.Parameter(torch.linspace(-0.5, 0.5, width))

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(u + self.weight * h)
        return (1 - z) * h + z * torch.tanh(u - 0.5 * h)


CELLS: dict[str, Callable[[int], Cell]] = {
    "a user's own": MixingCell,
    "para_gru": lambda d: ParaGRUCell(d, d),
    "elman": lambda d: ElmanCell(d, d),
    "lstm": lambda d: LSTMCell(d, d),
}
METHODS: dict[str, Method] = {
    "Sequential": Sequential(), "Compiled": Compiled(), "Newton": Newton(), "Fused": Fused(), "Auto": Auto(),
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One cell at one size, one pass: seconds by method, Auto's choice, the largest error, the seconds of Compiled's
    first call."""

    cell: str
    sizes: tuple[int, int, int]
    which: str
    seconds: dict[str, float]
    chosen: str
    error: float
    first_call: float = 0.0


def measure_methods(sizes: tuple[tuple[int, int, int], ...] = SIZES, rounds: int = ROUNDS) -> Iterator[Line]:
    """Every cell at every size, forward, and forward with the backward pass."""
    for name, make in CELLS.items():
        for B, T, d in sizes:
            torch.manual_seed(0)
            cell, x = make(d), torch.randn(B, T, d)
            for which in ("forward", "forward + backward"):
                yield _measure(name, cell, x, which, rounds)


def _measure(name: str, cell: Cell, x: Tensor, which: str, rounds: int) -> Line:
    calls, first_call = {}, 0.0
    training = which != "forward"
    # A dense Jacobian costs Newton the cube of the width at every step: it is left out, as Auto leaves it out.
    dense = isinstance(cell, ElmanCell | LSTMCell)
    for method_name, method in METHODS.items():
        if (method_name == "Newton" and dense) or (method_name == "Fused" and type(cell).fused is Cell.fused):
            continue
        calls[method_name] = _call(cell, x, method, training)
    want, worst = calls["Sequential"](), 0.0
    for method_name, call in calls.items():
        begin = time.perf_counter()
        got = call()
        if method_name == "Compiled":
            first_call = time.perf_counter() - begin
        comparisons = [
            Comparison(f"{method_name}, {i}", g, w, 1e-3) for i, (g, w) in enumerate(zip(got, want, strict=True))
        ]
        worst = max(worst, verify(comparisons))
    times = in_turns([*calls.values()], Budget(SECONDS, rounds, rounds))
    with torch.set_grad_enabled(training):
        chosen = run(cell, x).stats["method"]
    B, T, d = x.shape
    seconds = {n: median(t) for n, t in zip(calls, times, strict=True)}
    return Line(name, (B, T, d), which, seconds, chosen, worst, first_call)


def _call(cell: Cell, x: Tensor, method: Method, training: bool) -> Callable[[], tuple[Tensor, ...]]:
    leaves = [x.detach().requires_grad_(), *cell.parameters()]

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (run(cell, x, method=method).y,)

    def both() -> tuple[Tensor, ...]:
        y = run(cell, leaves[0], method=method).y
        return y.detach(), *torch.autograd.grad(y.square().mean(), leaves)

    return both if training else forward


def method_lines(line: Line) -> list[str]:
    """For people: milliseconds and, in brackets, how many times as fast as Sequential; and Auto beside the best."""
    B, T, d = line.sizes
    slow = line.seconds["Sequential"]
    told = [f"{n} {s * 1e3:.1f} ms ({slow / s:.1f}×)" for n, s in line.seconds.items()]
    allowed = {n: s for n, s in line.seconds.items() if n not in ("Auto", "Compiled")}
    best = min(allowed.values())
    compiled = f"; Compiled's first call took {line.first_call:.0f} s" if line.first_call > 1 else ""
    return [
        f"{line.cell}  B{B} T{T} d{d}, {line.which}: " + ", ".join(told),
        f"  Auto chose {line.chosen}: {line.seconds['Auto'] / best:.2f} of the best without a compiler{compiled}; "
        f"largest error {line.error:.0e}",
    ]
