"""Languages of random automata: a new one in every context (ICLL), and a fixed one with gaps (SelectivBench)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks._draw import check, choose, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["ICLL", "SelectivBench"]


@dataclass(frozen=True, kw_only=True)
class ICLL(Task):
    """Words of one random automaton after another: say a symbol that may come next. Every row has its own automaton.

    4 to `nodes` states; one to three edges each, uniform, to different states, with different symbols out of a random
    part of the alphabet. A word begins in state 0 and has uniform length below `longest`. Any allowed symbol is right;
    the end of a word is not asked for. Akyürek et al. 2024, arXiv:2401.12973, who name the benchmark RegBench; texts
    are cut at the length, where theirs have 10 to 20 words. What is allowed in a state not seen before cannot be known;
    the solver says what last followed the longest context that was seen.

    Fields:
        symbols: the alphabet, without the separator.
        nodes: the most states.
        longest: that words are shorter than.
        solved: the ceiling: what the solver reaches, as measured.
    """

    name: ClassVar[str] = "icll"
    about: ClassVar[About] = About(
        title="In-context language learning (RegBench)",
        paper="Akyürek et al. 2024, arXiv:2401.12973",
        tests="Learning a language from the context: n-gram statistics of a text in a language never met before.",
    )
    small: ClassVar = MappingProxyType(
        {
            "symbols": 8,
            "nodes": 6,
            "longest": 20,
            "solved": 0.86,
            "train_length": 64,
            "test_lengths": (64, 128, 256),
            "training": Training(steps=1000, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )
    prefixes: ClassVar[bool] = True
    EDGES: ClassVar[int] = 3

    symbols: int = 18
    nodes: int = 12
    longest: int = 50
    solved: float = 0.95
    train_length: int = 400
    test_lengths: tuple[int, ...] = (400, 800)
    training: Training = Training(steps=31_000, batch=32, learning_rates=(1e-4, 2.5e-4, 5e-4), weight_decay=0.01)

    def __post_init__(self) -> None:
        check(self.symbols > self.EDGES, f"`symbols` is {self.symbols}; wanted 4 or more.")
        check(self.nodes > self.EDGES, f"`nodes` is {self.nodes}; wanted 4 or more.")
        check(self.longest >= 2, f"`longest` is {self.longest}; wanted 2 or more.")

    @property
    def inputs(self) -> int:
        return self.symbols + 1

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def chance(self) -> float:
        return (1 + self.EDGES) / 2 / self.symbols

    @property
    def ceiling(self) -> float:
        return self.solved

    def _automata(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(B, nodes) how many edges, and (B, nodes, 3) their symbols and where they lead."""
        count = integers(4, self.nodes + 1, (batch, 1), generator)
        alphabet = torch.rand(batch, self.symbols, generator=generator).argsort(1).argsort(1)
        part = integers(4, self.symbols + 1, (batch, 1), generator)
        rows = batch * self.nodes
        usable = (alphabet < part).float().repeat_interleave(self.nodes, 0)
        others = (torch.arange(self.nodes) < count).float().unsqueeze(1) * (1 - torch.eye(self.nodes))
        edges = integers(1, self.EDGES + 1, (batch, self.nodes), generator)
        symbols = choose(usable, self.EDGES, generator).view(batch, self.nodes, self.EDGES)
        leads = choose(others.reshape(rows, self.nodes), self.EDGES, generator).view(batch, self.nodes, self.EDGES)
        return edges, symbols, leads

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        edges, symbols, leads = self._automata(batch, generator)
        rows = torch.arange(batch)
        may = torch.zeros(batch, self.nodes, self.symbols + 1, dtype=torch.bool)
        used = torch.where(torch.arange(self.EDGES) < edges.unsqueeze(-1), symbols, self.symbols)
        may = may.scatter(2, used, True)[..., :-1]

        chosen = torch.rand(length + 1, batch, generator=generator)
        sizes = integers(1, self.longest, (length + 1, batch), generator)
        state, left = torch.zeros(batch, dtype=torch.long), sizes[0]
        tokens, states = [], []
        for t in range(length + 1):
            edge = (chosen[t] * edges[rows, state]).long()
            ends = left == 0
            tokens.append(torch.where(ends, self.symbols, symbols[rows, state, edge]))
            state = torch.where(ends, 0, leads[rows, state, edge])
            left = torch.where(ends, sizes[t], left - 1)
            states.append(state)
        inputs = torch.stack(tokens, 1)
        allowed = may[rows.unsqueeze(1), torch.stack(states, 1)]
        targets = inputs[:, 1:]
        return Batch(inputs[:, :-1], targets, targets < self.symbols, allowed[:, :-1])

    def solve(self, inputs: Tensor) -> Tensor:
        return torch.tensor([self._solve(row) for row in inputs.tolist()])

    def _solve(self, row: list[int]) -> list[int]:
        """What came last after the longest context of this word that came before."""
        after: dict[tuple[int, ...], int] = {}
        word: list[int] = [self.symbols]
        answers = []
        for t, token in enumerate(row):
            word = [token] if token == self.symbols else [*word, token]
            contexts = [tuple(word[-n:]) for n in range(1, min(len(word), 8) + 1)]
            answers.append(next((after[c] for c in reversed(contexts) if c in after), 0))
            if t + 1 < len(row) and row[t + 1] != self.symbols:
                after.update((c, row[t + 1]) for c in contexts)
        return answers


@cache
def _grammar(symbols: int, depth: int, density: float, seed: int) -> Tensor:
    """(symbols·depth, symbols) the state that a symbol leads to from each state, or −1; state s emits s // depth.

    From every state each symbol is possible with the probability `density`, but at least two are, and leads to one of
    its `depth` states.
    """
    generator = torch.Generator().manual_seed(seed)
    states = symbols * depth
    score = torch.rand(states, symbols, generator=generator)
    possible = (score < density) | (score <= score.kthvalue(2, dim=1, keepdim=True).values)
    return torch.where(possible, torch.arange(symbols) * depth + integers(0, depth, (states, symbols), generator), -1)


@cache
def _allowed(symbols: int, depth: int, density: float, seed: int) -> float:
    """The part of the symbols that is possible, on average over a long walk from state 0."""
    grammar = _grammar(symbols, depth, density, seed)
    possible = grammar >= 0
    here = torch.zeros(len(grammar), dtype=torch.float64)
    here[0] = 1
    found = 0.0
    for step in range(60):
        there = (here / possible.sum(1)).unsqueeze(1).expand_as(grammar)[possible]
        here = torch.zeros_like(here).index_add(0, grammar[possible], there)
        if step >= 20:  # by then it has forgotten the beginning
            found += (here @ possible.double().mean(1)).item() / 40
    return found


@dataclass(frozen=True, kw_only=True)
class SelectivBench(Task):
    """A walk through a fixed random grammar, with gaps of noise: say a symbol that may come next in the walk.

    Each symbol has `depth` states, so that what may follow depends on far more than the last symbol. After any symbol a
    gap begins with the probability `gaps`; it has 1 to `longest_gap` tokens, or in the test `stretch` times as many,
    and leaves the state as it is. Gap tokens are their own, or with `grammar_gaps` symbols that may not come next. The
    steps before a symbol count. Bouhadjar et al. 2026, arXiv:2601.12598; the walk begins in state 0 and goes on, where
    theirs ends at a terminal state.

    Fields:
        symbols, depth, density, seed: of the grammar.
        gaps, longest_gap, stretch, grammar_gaps: as above.
        noise_tokens: how many different ones a gap has.
    """

    name: ClassVar[str] = "selectivbench"
    about: ClassVar[About] = About(
        title="SelectivBench",
        paper="Bouhadjar et al. 2026, arXiv:2601.12598",
        tests="Keeping one's place in a grammar across distractors of any length: what gates by the input are for.",
    )
    small: ClassVar = MappingProxyType(
        {
            "symbols": 12,
            "depth": 4,
            "gaps": 0.2,
            "stretch": 2,
            "train_length": 64,
            "test_lengths": (64, 128, 256),
            "training": Training(steps=800, batch=64, learning_rates=(3e-3, 1e-3)),
        }
    )

    prefixes: ClassVar[bool] = True

    symbols: int = 40
    depth: int = 40
    density: float = 0.25
    seed: int = 0
    gaps: float = 0.1
    longest_gap: int = 4
    stretch: int = 1
    grammar_gaps: bool = False
    noise_tokens: int = 4
    train_length: int = 200
    test_lengths: tuple[int, ...] = (200, 400, 800)
    training: Training = Training(steps=150_000, batch=64, learning_rates=(5e-4, 1e-3, 2e-3))

    def __post_init__(self) -> None:
        check(self.symbols >= 3, f"`symbols` is {self.symbols}; wanted 3 or more.")
        check(0 <= self.gaps < 1, f"`gaps` is {self.gaps}; wanted a probability below 1.")
        check(0 < self.density < 1, f"`density` is {self.density}; wanted a probability between 0 and 1.")
        check(
            min(self.depth, self.longest_gap, self.stretch, self.noise_tokens) >= 1,
            "`depth`, `longest_gap`, `stretch` and `noise_tokens` must be 1 or more.",
        )

    @property
    def inputs(self) -> int:
        return self.symbols + self.noise_tokens

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def grammar(self) -> Tensor:
        return _grammar(self.symbols, self.depth, self.density, self.seed)

    @property
    def chance(self) -> float:
        return _allowed(self.symbols, self.depth, self.density, self.seed)

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        longest = self.longest_gap * (self.stretch if split == "test" else 1)
        grammar = self.grammar
        state, gap = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)
        tokens, states, real = [], [], []
        chosen = torch.rand(length + 1, batch, self.symbols, generator=generator)
        begins = torch.rand(length + 1, batch, generator=generator) < self.gaps
        sizes = integers(1, longest + 1, (length + 1, batch), generator)
        noise = integers(self.symbols, self.inputs, (length + 1, batch), generator)
        for t in range(length + 1):
            gap = torch.where((gap == 0) & begins[t] & (t > 0), sizes[t] + 1, gap)  # one more: it is counted down below
            gap = (gap - 1).clamp(min=0) if t else gap
            possible = grammar[state] >= 0
            symbol = (chosen[t] * possible).argmax(1)
            wrong = (chosen[t] * ~possible).argmax(1) if self.grammar_gaps else noise[t]
            inside = gap > 0
            tokens.append(torch.where(inside, wrong, symbol))
            state = torch.where(inside, state, grammar[state, symbol])
            states.append(state)
            real.append(~inside)
        inputs = torch.stack(tokens, 1)
        allowed = grammar[torch.stack(states, 1)] >= 0
        return Batch(inputs[:, :-1], inputs[:, 1:], torch.stack(real, 1)[:, 1:], allowed[:, :-1])

    def solve(self, inputs: Tensor) -> Tensor:
        grammar = self.grammar
        state = torch.zeros(len(inputs), dtype=torch.long)
        answers = []
        for t in range(inputs.shape[1]):
            leads = grammar[state, inputs[:, t].clamp(max=self.symbols - 1)]
            state = torch.where((inputs[:, t] < self.symbols) & (leads >= 0), leads, state)
            answers.append((grammar[state] >= 0).int().argmax(1))
        return torch.stack(answers, 1)
