"""SCAN: commands in a small language, to be carried out as actions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["Scan", "carry_out", "commands"]

VERBS = {"walk": "WALK", "look": "LOOK", "run": "RUN", "jump": "JUMP"}
TURNS = {"left": "LTURN", "right": "RTURN"}
TIMES = {"twice": 2, "thrice": 3}
WORDS = (*VERBS, *TURNS, *TIMES, "turn", "opposite", "around", "and", "after")
ACTIONS = (*VERBS.values(), *TURNS.values())
MARK, END = len(WORDS), len(ACTIONS)  # between command and actions; after the last action


@cache
def commands() -> tuple[tuple[str, ...], ...]:
    """All 20,910 of them."""
    verbs = [(v,) for v in VERBS]
    directed = [(*v, *how, t) for v in [*verbs, ("turn",)] for how in ((), ("opposite",), ("around",)) for t in TURNS]
    single = [(*v, *times) for v in verbs + directed for times in ((), *((t,) for t in TIMES))]
    pairs = [(*a, word, *b) for a, word, b in product(single, ("and", "after"), single)]
    return (*single, *pairs)


def carry_out(command: tuple[str, ...]) -> list[str]:
    """The actions of a command: ``b after a`` is a, then b; ``around`` turns and acts four times, ``opposite`` turns
    twice and acts, ``twice`` and ``thrice`` repeat.
    """
    for word in ("and", "after"):
        if word in command:
            at = command.index(word)
            first, second = carry_out(command[:at]), carry_out(command[at + 1 :])
            return first + second if word == "and" else second + first
    if command[-1] in TIMES:
        return carry_out(command[:-1]) * TIMES[command[-1]]
    act = [VERBS[command[0]]] if command[0] in VERBS else []
    if len(command) == 1:
        return act
    turn = [TURNS[command[-1]]]
    if "around" in command:
        return (turn + act) * 4
    return turn * (2 if "opposite" in command else 1) + act


@cache
def _examples() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, 58) inputs and targets, (N,) the lengths of commands and of actions; of every command, in a fixed order."""
    word, action = {w: i for i, w in enumerate(WORDS)}, {a: i for i, a in enumerate(ACTIONS)}
    told = [([word[w] for w in c], [action[a] for a in carry_out(c)]) for c in commands()]
    longest = max(len(c) + 1 + len(a) for c, a in told)
    inputs = torch.full((len(told), longest), MARK + 1 + END)
    targets = torch.zeros_like(inputs)
    for row, (c, a) in enumerate(told):
        whole = [*c, MARK, *(MARK + 1 + x for x in a)]
        inputs[row, : len(whole)] = torch.tensor(whole)
        targets[row, len(c) : len(whole)] = torch.tensor([*a, END])
    order = torch.randperm(len(told), generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[len(c), len(a)] for c, a in told])
    return inputs[order], targets[order], sizes[order, 0], sizes[order, 1]


@dataclass(frozen=True, kw_only=True)
class Scan(Task):
    """jump twice after turn left | LTURN JUMP JUMP: from the mark on, say the next action, and at last that it is over.

    The actions said so far are given, so the score is that of single actions, where the paper counts whole sequences.
    Training has four fifths of the commands of at most 22 actions; the test the other fifth, and at lengths beyond that
    of training the commands of 24 to 48 actions: the paper's split by length. Lake & Baroni 2018, arXiv:1711.00350.
    """

    name: ClassVar[str] = "scan"
    about: ClassVar[About] = About(
        title="SCAN",
        paper="Lake & Baroni 2018, arXiv:1711.00350",
        tests="Composing known parts into longer commands than were ever seen.",
    )
    small: ClassVar = MappingProxyType({"training": Training(steps=1000, batch=64, learning_rates=(3e-3, 1e-3))})
    published: ClassVar = MappingProxyType(
        {
            "lstm": Figure(
                0.998,
                "2 layers, d = 200, without attention",
                "Lake & Baroni 2018, arXiv:1711.00350",
                "whole sequences, split at random",
            )
        }
    )
    TRAINED: ClassVar[int] = 22  # actions

    train_length: int = 32
    test_lengths: tuple[int, ...] = (32, 58)
    training: Training = Training(steps=100_000, batch=1, learning_rates=(1e-3,))

    def __post_init__(self) -> None:
        check(self.train_length >= self.shortest, f"`train_length` is {self.train_length}; wanted {self.shortest}.")

    @property
    def inputs(self) -> int:
        return MARK + 2 + END

    @property
    def classes(self) -> int:
        return END + 1

    @property
    def shortest(self) -> int:
        return 9  # enough of both splits fit

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        inputs, targets, words, actions = _examples()
        length = length or self.train_length
        held = torch.arange(len(inputs)) % 5 == 0
        if length > self.train_length:
            among = actions > self.TRAINED
        else:
            among = (actions <= self.TRAINED) & (held if split == "test" else ~held)
        fitting = (among & (words + 1 + actions <= length)).nonzero()[:, 0]
        check(len(fitting) > 0, f"No command of this split has {length} steps; the shortest of the long ones have 30.")
        rows = fitting[integers(0, len(fitting), (batch,), generator)]
        wide = max(0, length - inputs.shape[1])
        inputs, targets = (
            torch.nn.functional.pad(x[rows, :length], (0, wide), value=x.max().item()) for x in (inputs, targets)
        )
        steps = torch.arange(length)
        first = words[rows].unsqueeze(1)
        mask = (steps >= first) & (steps <= first + actions[rows].unsqueeze(1))
        return Batch(inputs, targets, mask)

    def solve(self, inputs: Tensor) -> Tensor:
        answers = torch.zeros_like(inputs)
        for row, tokens in enumerate(inputs.tolist()):
            at = tokens.index(MARK) if MARK in tokens else len(tokens)
            told = [ACTIONS.index(a) for a in carry_out(tuple(WORDS[t] for t in tokens[:at]))][: len(tokens) - at]
            answers[row, at : at + len(told)] = torch.tensor(told)
            answers[row, at + len(told) : at + len(told) + 1] = END
        return answers
