"""In-context recall as MAD has it: plain, among noise, and with keys and values of several tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ritornello.tasks._draw import check, choose, integers
from ritornello.tasks.base import About, Batch, Figure, Task, Training
from ritornello.typing import Tensor

__all__ = ["MAD", "MAD_TRAINING", "FuzzyRecall", "InContextRecall", "NoisyRecall", "mad_figures"]

MAD = "Poli et al. 2024, arXiv:2403.17844"
MAD_TRAINING = Training(steps=20_000, batch=128, learning_rates=(1e-4, 5e-4, 1e-3), weight_decay=0.1)


_MODELS = {
    "attention": 400, "mlstm": 400, "rwkv7": 550, "mamba": 400, "delta_product": 750, "gated_delta_net": 450,
    "delta_net": 450, "gla": 425,
}  # fmt: skip
"""Thousands of parameters of the published models."""


def mad_figures(*values: float) -> MappingProxyType[str, Figure]:
    """A column of the table of HassanJbara/lin-attn-bench: a task of MAD, the models in the order of `_MODELS`."""
    return MappingProxyType(
        {
            method: Figure(
                value, f"two blocks, d = 128, about {size}K parameters", "HassanJbara/lin-attn-bench, README"
            )
            for (method, size), value in zip(_MODELS.items(), values, strict=True)
        }
    )


def small(**fields: Any) -> MappingProxyType[str, Any]:
    training = Training(steps=800, batch=64, learning_rates=(3e-3, 1e-3))
    return MappingProxyType({"train_length": 64, "test_lengths": (64, 128, 256), "training": training, **fields})


@dataclass(frozen=True, kw_only=True)
class PairRecall(Task):
    """k v k v …, keys and values uniform, but a key keeps its first value: where a key comes again, say its value.

    Keys are the first `keys` tokens, values as many after them, noise the rest; with probability `noise` a pair is two
    tokens of noise. The last pair always repeats a key. MAD trains on every next token; here only what can be known
    counts.
    """

    keys: int = 8
    noise_tokens: int = 0
    noise: float = 0.0

    train_length: int = 128
    test_lengths: tuple[int, ...] = (128, 256, 512, 1024)
    training: Training = MAD_TRAINING

    def __post_init__(self) -> None:
        check(0 <= self.noise < 1, f"`noise` is {self.noise}; wanted a probability below 1.")
        check(self.noise == 0 or self.noise_tokens > 0, "`noise` needs `noise_tokens` to draw from; there are 0.")

    @property
    def inputs(self) -> int:
        return 2 * self.keys + self.noise_tokens

    @property
    def classes(self) -> int:
        return self.inputs

    @property
    def answers(self) -> range:
        return range(self.keys, 2 * self.keys)

    @property
    def shortest(self) -> int:
        return 4

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        check(length % 2 == 0, f"`length` is {length}; pairs need an even one.")
        pairs = length // 2
        keys = integers(0, self.keys, (batch, pairs), generator)
        noisy = torch.rand(batch, pairs, generator=generator) < self.noise
        kept = integers(0, pairs - 1, (batch, 1), generator)  # a pair that is no noise, and comes again
        noisy = noisy.scatter(1, kept, False)
        noisy[:, -1] = False
        keys[:, -1:] = keys.gather(1, kept)
        values = integers(self.keys, 2 * self.keys, (batch, self.keys), generator).gather(1, keys)
        seen = torch.nn.functional.one_hot(keys, self.keys) * ~noisy.unsqueeze(-1)
        again = (seen.cumsum(1) > 1).gather(2, keys.unsqueeze(-1)).squeeze(-1) & ~noisy
        inputs = torch.stack((keys, values), -1)
        if self.noise:
            rest = integers(2 * self.keys, self.inputs, (batch, pairs, 2), generator)
            inputs = torch.where(noisy.unsqueeze(-1), rest, inputs)
        empty = torch.zeros_like(again)
        targets = torch.stack((values, values), -1)
        return Batch(inputs.flatten(1), targets.flatten(1), torch.stack((again, empty), -1).flatten(1))

    def solve(self, inputs: Tensor) -> Tensor:
        rows, length = inputs.shape
        steps = torch.arange(length).expand(rows, -1)
        first = torch.full((rows, self.inputs), length).scatter_reduce(1, inputs, steps, "amin")
        return inputs.gather(1, (first.gather(1, inputs) + 1).clamp(max=length - 1))


@dataclass(frozen=True, kw_only=True)
class InContextRecall(PairRecall):
    """Eight keys, eight values, 128 steps."""

    name: ClassVar[str] = "mad_recall"
    about: ClassVar[About] = About(
        title="MAD: in-context recall",
        paper=MAD,
        tests="Looking up the value of a key in the context, with few keys.",
    )
    small: ClassVar = small()
    published: ClassVar = mad_figures(0.905, 1.000, 0.999, 0.993, 0.999, 0.999, 0.999, 0.918)


@dataclass(frozen=True, kw_only=True)
class NoisyRecall(PairRecall):
    """Eight keys, eight values, and a fifth of the pairs noise."""

    name: ClassVar[str] = "mad_noisy_recall"
    about: ClassVar[About] = About(
        title="MAD: noisy in-context recall",
        paper=MAD,
        tests="Looking up the value of a key in the context, while ignoring what is neither.",
    )
    small: ClassVar = small()
    published: ClassVar = mad_figures(0.897, 1.000, 0.999, 0.997, 0.999, 0.999, 0.999, 0.931)

    noise_tokens: int = 16
    noise: float = 0.2


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall(Task):
    """As `mad_recall`, but keys and values are of one to three tokens, without repetition inside.

    Seven key tokens, eight value tokens, one of padding at the left. Training has keys of every size, the test only of
    the largest. What counts is each token of a value whose key came before.

    Fields:
        motif: the largest number of tokens in a key or a value.
    """

    name: ClassVar[str] = "mad_fuzzy_recall"
    about: ClassVar[About] = About(
        title="MAD: fuzzy in-context recall",
        paper=MAD,
        tests="Looking up values by keys that are only found by putting several tokens together.",
    )
    small: ClassVar = small(motif=2)
    published: ClassVar = mad_figures(0.565, 0.237, 0.180, 0.123, 0.277, 0.286, 0.393, 0.155)

    motif: int = 3
    train_length: int = 128
    test_lengths: tuple[int, ...] = (128, 256, 512, 1024)
    training: Training = MAD_TRAINING

    KEYS: ClassVar[int] = 7
    VALUES: ClassVar[int] = 8

    def __post_init__(self) -> None:
        check(1 <= self.motif <= 4, f"`motif` is {self.motif}; wanted 1 to 4.")

    @property
    def inputs(self) -> int:
        return self.KEYS + self.VALUES + 1

    @property
    def classes(self) -> int:
        return self.inputs

    @property
    def answers(self) -> range:
        return range(self.KEYS, self.KEYS + self.VALUES)

    @property
    def shortest(self) -> int:
        return 4 * self.motif

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        keys, pieces = self._pairs(batch, length, generator, split)
        sizes = (pieces >= 0).sum(-1)
        # from the right: the last pair is placed first, and what does not fit on the left is padding
        ends = length - torch.cat((torch.zeros_like(sizes[:, :1]), sizes.cumsum(1)[:, :-1]), 1)
        starts = ends - sizes
        fits = starts >= 0
        same = keys.unsqueeze(2) == torch.where(fits, keys, -1).unsqueeze(1)
        again = same.triu(1).any(2)  # the same key further left

        present = pieces >= 0
        places = starts.unsqueeze(-1) + present.cumsum(-1) - 1
        places = torch.where(present & fits.unsqueeze(-1), places, length).flatten(1)  # place `length` is thrown away
        counted = (again.unsqueeze(-1) & present & (pieces >= self.KEYS)).flatten(1)
        tokens = torch.full((batch, length + 1), self.inputs - 1).scatter(1, places, pieces.flatten(1))[:, :-1]
        answered = torch.zeros(batch, length + 1, dtype=torch.bool).scatter(1, places, counted)[:, :-1]
        targets = torch.cat((tokens[:, 1:], tokens[:, :1]), 1)
        mask = torch.cat((answered[:, 1:], torch.zeros_like(answered[:, :1])), 1)
        return Batch(tokens, targets, mask)

    def _pairs(self, batch: int, length: int, generator: torch.Generator, split: str) -> tuple[Tensor, Tensor]:
        """(B, P) the pairs' keys by number, the last first, and (B, P, 2·motif) their tokens, −1 where a motif ends."""
        all_keys = _motifs(self.KEYS, self.motif)
        lengths = (all_keys >= 0).sum(1)
        least = self.motif if split == "test" else 1
        count = length // (least + 1) + 1
        wanted = integers(least, self.motif + 1, (batch, count), generator)
        first, number = torch.searchsorted(lengths, wanted), (lengths == wanted.unsqueeze(-1)).sum(-1)
        chosen = first + (torch.rand(batch, count, generator=generator) * number).long()
        sure = length // (2 * self.motif)  # pairs that fit, whatever their sizes
        chosen[:, :1] = chosen.gather(1, integers(1, sure, (batch, 1), generator))
        values = self.KEYS + choose(torch.ones(batch * count, self.VALUES), self.motif, generator)
        cut = torch.arange(self.motif) >= integers(1, self.motif + 1, (batch * count, 1), generator)
        values = values.masked_fill(cut, -1).unflatten(0, (batch, count))
        owner = (chosen.unsqueeze(2) == chosen.unsqueeze(1)).int().argmax(2)  # one pair of each key gives its value
        values = values.gather(1, owner.unsqueeze(-1).expand_as(values))
        return chosen, torch.cat((all_keys[chosen], values), -1)

    def solve(self, inputs: Tensor) -> Tensor:
        return torch.tensor([self._solve(row) for row in inputs.tolist()])

    def _solve(self, row: list[int]) -> list[int]:
        """A pass over one row: keys by their tokens, and where in the current value one stands."""
        known: dict[tuple[int, ...], list[int]] = {}
        key: tuple[int, ...] = ()
        value: list[int] = []
        answers = []
        for token in row:
            if token < self.KEYS:  # another key begins after a value
                key, value = ((token,) if value else (*key, token)), []
            elif token < self.KEYS + self.VALUES:
                value.append(token)
                if len(value) > len(known.get(key, ())):
                    known[key] = list(value)
            else:
                key, value = (), []
            told = known.get(key, [])
            answers.append(told[len(value)] if len(value) < len(told) else 0)
        return answers


def _motifs(tokens: int, longest: int) -> Tensor:
    """(n, longest) every sequence of one to `longest` different tokens, the short first, with −1 after its end."""
    found = [p + (-1,) * (longest - size) for size in range(1, longest + 1) for p in permutations(range(tokens), size)]
    return torch.tensor(found)
