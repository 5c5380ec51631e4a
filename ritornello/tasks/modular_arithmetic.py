"""Modular arithmetic: the value of an expression modulo five, with and without brackets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About
from ritornello.tasks.formal import DELETANG, Formal, deletang, grazzi, small
from ritornello.typing import Tensor

__all__ = ["BracketedArithmetic", "ModularArithmetic"]

MODULUS = 5
PLUS, MINUS, TIMES, OPEN, CLOSE, EQUALS = range(MODULUS, MODULUS + 6)  # after the digits


@dataclass(frozen=True, kw_only=True)
class ModularArithmetic(Formal):
    """y_t = x₁ … x_t mod 5, where x is digit, operator, digit, … of 0–4 and + − ×, and × binds closer.

    Fields:
        dense: every step after a digit counts, otherwise only a row's last digit.
    """

    name: ClassVar[str] = "modular_arithmetic"
    about: ClassVar[About] = About(
        title="Modular arithmetic without brackets",
        paper=DELETANG,
        tests="Tracking a sum and an open product, both modulo five.",
    )
    small: ClassVar = small(1500, train_length=20, test_lengths=(20, 40, 80))
    published: ClassVar = MappingProxyType(
        deletang(100, 100, 100, 24.2, 100)
        | grazzi(
            attention=0.031,
            mlstm=0.040,
            slstm=0.787,
            mamba=0.095,
            mamba_signed=0.241,
            delta_net=0.314,
            delta_net_signed=0.971,
        )
    )
    symbols: ClassVar[int] = MODULUS + 3
    labels: ClassVar[int] = MODULUS

    def _strings(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        inputs = integers(0, MODULUS, (len(sizes), int(sizes.max())), generator)
        operators = inputs[:, 1::2]
        operators.copy_(integers(PLUS, TIMES + 1, tuple(operators.shape), generator))
        return inputs

    def _counted(self, steps: Tensor, last: Tensor) -> Tensor:
        digits = torch.arange(steps.shape[1]) % 2 == 0
        if self.dense:
            return steps & digits
        before = torch.cat((last[:, 1:], torch.zeros_like(last[:, :1])), 1)  # where a row would end in an operator
        return (last | before) & digits

    def solve(self, inputs: Tensor) -> Tensor:
        sums = torch.zeros_like(inputs[:, 0])
        products = inputs[:, 0]
        answers = [products]
        for t in range(1, inputs.shape[1]):
            if t % 2 == 0:
                operator, digit = inputs[:, t - 1], inputs[:, t]
                closed = operator != TIMES
                sums = torch.where(closed, sums + products, sums)
                sign = torch.where(operator == MINUS, -1, 1)
                products = torch.where(closed, sign * digit, products * digit) % MODULUS
            answers.append((sums + products) % MODULUS)
        return torch.stack(answers, 1)


@dataclass(frozen=True, kw_only=True)
class BracketedArithmetic(Formal):
    """The value modulo 5 of an expression, asked for at the ``=`` that ends it: (E + E), (E − E), (E × E), −E, d.

    An expression of n > 4 tokens is a bracket of two, the length of the first uniform over 1 … n − 4, otherwise a digit
    with n − 1 signs; operators and digits are uniform.
    """

    name: ClassVar[str] = "modular_arithmetic_brackets"
    about: ClassVar[About] = About(
        title="Modular arithmetic with brackets",
        paper=DELETANG,
        tests="Evaluating nested expressions: a stack, beyond what a state of constant size can hold.",
    )
    small: ClassVar = small(1500, dense=False, train_length=20, test_lengths=(20, 40, 80))
    symbols: ClassVar[int] = MODULUS + 6
    labels: ClassVar[int] = MODULUS

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not self.dense, "`dense` is True; an expression in brackets has a value only at its end.")

    @property
    def shortest(self) -> int:
        return 2

    def _strings(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        random = torch.rand(len(sizes), 4 * int(sizes.max()), generator=generator).tolist()
        rows = [_expression(size - 1, iter(row)) for size, row in zip(sizes[:, 0].tolist(), random, strict=True)]
        return torch.tensor([row + [EQUALS] * (int(sizes.max()) - len(row)) for row in rows])

    def solve(self, inputs: Tensor) -> Tensor:
        values = [_value(row[: row.index(EQUALS)]) for row in inputs.tolist()]
        return torch.tensor(values).unsqueeze(1).expand_as(inputs)


def _expression(size: int, random: Iterator[float]) -> list[int]:
    """An expression of `size` tokens, from numbers in [0, 1)."""
    if size < 5:
        return [MINUS] * (size - 1) + [int(next(random) * MODULUS)]
    first = 1 + int(next(random) * (size - 4))
    left, right = _expression(first, random), _expression(size - 3 - first, random)
    return [OPEN, *left, PLUS + int(next(random) * 3), *right, CLOSE]


def _apply(a: int, operator: int, b: int) -> int:
    return (a + b if operator == PLUS else a - b if operator == MINUS else a * b) % MODULUS


def _value(tokens: list[int]) -> int:
    """The value of an expression, by a stack."""
    stack: list[list[int]] = [[]]  # of each open bracket, its values and operators
    for token in tokens:
        if token == OPEN:
            stack.append([])
            continue
        if token in (PLUS, MINUS, TIMES):
            stack[-1].append(token)
            continue
        if token == CLOSE:
            a, operator, b = stack.pop()
            token = _apply(a, operator, b)
        level = stack[-1]
        while level and level[-1] == MINUS and (len(level) < 2 or level[-2] >= MODULUS):  # a sign, not a difference
            level.pop()
            token = -token % MODULUS
        level.append(token)
    return stack[0][0]
