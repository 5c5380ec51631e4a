"""Measure the constants of `ritornello.method.cost` on this machine, and print them as the file holds them.

    python -m ritornello.lab.fit_costs            # a minute on a quiet machine: processor time of one thread
    python -m ritornello.lab.fit_costs --quick    # seconds, to see that it works

A method is timed at as many sizes as it has constants, which are then solved for. Training's are ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from ritornello._run import run
from ritornello.cell import Cell
from ritornello.method import Compiled, Method, Newton, Sequential
from ritornello.method.cost import COSTS, Costs, character
from ritornello.typing import Tensor

__all__ = ["Sizes", "fit", "main", "told"]

BLOCK = 16


class _Chain(Cell):
    """h ← tanh(u + w h), then as many times h ← h + w: a step of a given number of operations."""

    def __init__(self, width: int, extra: int):
        super().__init__()
        self.state_shape, self.extra = (width,), extra
        self.weight = nn.Parameter(torch.full((width,), 0.3))

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        h = torch.tanh(u + self.weight * h)
        for _ in range(self.extra):
            h = h + self.weight
        return h


@dataclass(frozen=True)
class Sizes:
    """A short and a long sequence, a narrow and a wide state, and how often each is timed."""

    length: int = 2048
    narrow: int = 16
    wide: int = 1024
    extra: int = 8
    rounds: int = 5


def fit(sizes: Sizes = Sizes(), compiled: bool = True) -> Costs:
    """The constants on this machine's processor, from the formulas of `ritornello.method.cost`."""
    few, many, wide = _Chain(sizes.narrow, 0), _Chain(sizes.narrow, sizes.extra), _Chain(sizes.wide, 0)
    found = _fit_sequential([few, many, wide], sizes) | _fit_newton([few, many], sizes)
    if compiled:
        found |= _fit_compiled([few, wide], sizes)
    return replace(COSTS["cpu"], **found)


def _fit_sequential(cells: list[_Chain], sizes: Sizes) -> dict[str, float]:
    T, method, rounds = sizes.length, Sequential(), sizes.rounds
    known, seconds = map(_character, cells), [_seconds(cell, T, method, rounds) for cell in cells]
    loop, call, number = _solve([[T, T * c.calls, T * c.numbers] for c in known], seconds)
    training = _seconds(cells[0], T, method, rounds, True) / seconds[0]
    return {"loop": loop, "call": call, "number": number, "sequential_training": training}


def _fit_newton(cells: list[_Chain], sizes: Sizes) -> dict[str, float]:
    """Lengths tell what numbers cost, operations what calls and their work cost."""
    T, method, rounds = sizes.length, Newton(), sizes.rounds
    rows, seconds = [], []
    for cell in cells:
        calls, width = _character(cell).calls, len(cell.weight)
        for length in (T, 8 * T):
            with torch.no_grad():
                iterations = run(cell, _input(cell, length), method=method).stats["iterations"]
            each = length * width * (1 + iterations) / 2
            rows.append([1, calls, each, each * calls])
            seconds.append(_seconds(cell, length, method, rounds))
    names = ("newton", "newton_call", "newton_number", "newton_work")
    training = _seconds(cells[0], T, method, rounds, True) / seconds[0]
    return dict(zip(names, _solve(rows, seconds), strict=True)) | {"newton_training": training}


def _fit_compiled(cells: list[_Chain], sizes: Sizes) -> dict[str, float]:
    T, method, rounds = sizes.length, Compiled(BLOCK), sizes.rounds
    known, seconds = map(_character, cells), [_seconds(cell, T, method, rounds) for cell in cells]
    block, number = _solve([[T / BLOCK, T * c.numbers] for c in known], seconds)
    training = _seconds(cells[0], T, method, rounds, True) / seconds[0]
    return {"block": block, "compiled": number, "compiled_training": training}


def _solve(rows: list[list[float]], seconds: list[float]) -> list[float]:
    """The constants whose sums, weighed by the rows, are the seconds; none below 0, which noise could make one."""
    matrix, wanted = (torch.tensor(x, dtype=torch.float64) for x in (rows, seconds))
    size = matrix.norm(dim=0)  # of very different sizes
    return (torch.linalg.solve(matrix / size, wanted) / size).clamp(min=0).tolist()


def _character(cell: _Chain):
    width = len(cell.weight)
    return character(cell, torch.zeros(1, 4, width), torch.zeros(1, width))


def _input(cell: _Chain, length: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(1, length, len(cell.weight))


def _seconds(cell: _Chain, length: int, method: Method, rounds: int, training: bool = False) -> float:
    """The least processor time of a run, after one that is not counted."""
    x = _input(cell, length).requires_grad_(training)

    def forward() -> None:
        with torch.no_grad():
            run(cell, x, method=method)

    def both() -> None:
        torch.autograd.grad(run(cell, x, method=method).y.square().mean(), [x, *cell.parameters()])

    return _least(both if training else forward, rounds)


def _least(call: Callable[[], None], rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def told(costs: Costs) -> list[str]:
    """The fields as `ritornello/method/cost.py` holds them."""
    return [f"    {field.name}: float = {getattr(costs, field.name):.2g}" for field in fields(costs)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the constants of ritornello/method/cost.py on this machine.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--no-compiler", action="store_true", help="leave those of Compiled as they are")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = Sizes(64, 4, 64, 4, 1) if chosen.quick else Sizes()
    print("class Costs:", *told(fit(sizes, not chosen.no_compiler)), sep="\n")


if __name__ == "__main__":
    main()
