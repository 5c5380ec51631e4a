"""Batches of token windows. A step's batch is a function of (seed, step): a resumed run reads what it would have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ritornello.errors import InputError
from ritornello.models.tokens import ByteTokenizer, Tokenizer
from ritornello.tasks.text_files import Document
from ritornello.typing import Tensor

__all__ = ["Batch", "Packed", "Streams", "Tokens", "boundary", "vocabulary"]


def boundary(tokenizer: Tokenizer) -> int:
    """The id that stands before each document: 0 among bytes, which text does not hold, else one beyond the others."""
    return 0 if isinstance(tokenizer, ByteTokenizer) else tokenizer.vocab_size


def vocabulary(tokenizer: Tokenizer) -> int:
    """How many ids a model reads: those of the tokenizer, and the boundary id where it is one more."""
    return max(tokenizer.vocab_size, boundary(tokenizer) + 1)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Documents as token ids, one after the other, each led by the boundary id.

    Args:
        ids: (N,) uint8 or int32.
        starts: where each document's boundary id stands; at the end N.
        nbytes: of the text, without the boundaries.
    """

    ids: Tensor
    starts: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, documents: Sequence[Document], tokenizer: Tokenizer) -> Tokens:
        mark = boundary(tokenizer)
        parts, starts = [], [0]
        for document in documents:
            if isinstance(tokenizer, ByteTokenizer):  # no list of a million integers
                part = torch.frombuffer(bytearray([mark]) + document.text, dtype=torch.uint8)
            else:
                part = torch.tensor([mark, *tokenizer.encode(document.text)], dtype=torch.int32)
            parts.append(part)
            starts.append(starts[-1] + len(part))
        return cls(torch.cat(parts), tuple(starts), sum(len(d.text) for d in documents))

    def shuffled(self, seed: int) -> Tokens:
        """The same documents in an order that `seed` gives."""
        order = torch.randperm(len(self.starts) - 1, generator=torch.Generator().manual_seed(seed)).tolist()
        parts = [self.ids[self.starts[i] : self.starts[i + 1]] for i in order]
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + len(part))
        return Tokens(torch.cat(parts), tuple(starts), self.nbytes)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step reads: inputs and targets (B, T) int64, and `cu_seqlens` where they are packed.

    `fresh`: it begins new sequences; else the state that the batch before left goes on.
    """

    ids: Tensor
    targets: Tensor
    cu_seqlens: Tensor | None = None
    fresh: bool = True


class _Epochs(ABC):
    """What both ways of batching share: a shuffled order of the documents for each pass over them."""

    @abstractmethod
    def at(self, step: int) -> Batch:
        """The batch of a step."""

    def __init__(self, tokens: Tokens, batch: int, length: int, seed: int, rank: int = 0, world: int = 1):
        self.tokens, self.batch, self.length, self.seed = tokens, batch, length, seed
        self.rank, self.world = rank, world
        self._epoch: tuple[int, Tokens] | None = None

    def epoch(self, number: int) -> Tokens:
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = number, self.tokens.shuffled(self.seed * 1_000_003 + number)
        return self._epoch[1]

    def too_short(self, needed: int) -> InputError:
        return InputError(
            f"`data` has {len(self.tokens.ids):,} tokens to train on; a step reads {needed:,} "
            f"(batch {self.batch} × length {self.length} × {self.world} devices). Give more data, or lower them."
        )


class Streams(_Epochs):
    """Every row reads a stretch of the text from beginning to end, window after window: the state is carried."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows = self.batch * self.world
        self.stretch = (len(self.tokens.ids) - 1) // self.rows
        self.windows = self.stretch // self.length
        if self.windows < 1:
            raise self.too_short(self.rows * self.length + 1)

    def at(self, step: int) -> Batch:
        number, window = divmod(step, self.windows)
        ids = self.epoch(number).ids
        first = self.rank * self.batch * self.stretch + window * self.length
        starts = first + torch.arange(self.batch).unsqueeze(1) * self.stretch
        rows = ids[starts + torch.arange(self.length + 1)].long()
        return Batch(rows[:, :-1], rows[:, 1:], fresh=window == 0)


class Packed(_Epochs):
    """Pieces of `length` tokens in shuffled order; where a document begins inside, they are packed along time and it
    starts a sequence of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pieces = (len(self.tokens.ids) - 1) // self.length
        self.steps = self.pieces // (self.batch * self.world)
        self._drawn: tuple[int, Tensor, Tensor] | None = None
        if self.steps < 1:
            raise self.too_short(self.batch * self.world * self.length + 1)

    def at(self, step: int) -> Batch:
        number, within = divmod(step, self.steps)
        order, starts = self._draw(number)
        mine = (within * self.world + self.rank) * self.batch
        pieces = order[mine : mine + self.batch]
        firsts = pieces.unsqueeze(1) * self.length
        rows = self.epoch(number).ids[firsts + torch.arange(self.length + 1)].long()
        bounds = {i * self.length for i in range(self.batch + 1)}
        inside = torch.searchsorted(starts, torch.cat([firsts, firsts + self.length], 1)).tolist()
        for i, (a, b) in enumerate(inside):
            bounds |= set((starts[a:b] - firsts[i] + i * self.length).tolist())
        if len(bounds) == self.batch + 1:  # no document begins inside: plain rows, which every kernel likes best
            return Batch(rows[:, :-1], rows[:, 1:])
        cu_seqlens = torch.tensor(sorted(bounds))
        return Batch(rows[:, :-1].reshape(1, -1), rows[:, 1:].reshape(1, -1), cu_seqlens)

    def _draw(self, number: int) -> tuple[Tensor, Tensor]:
        """The pieces of an epoch in their order, and where its documents begin: drawn once, not at every step."""
        if self._drawn is None or self._drawn[0] != number:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            order = torch.randperm(self.pieces, generator=generator)
            self._drawn = number, order, torch.tensor(self.epoch(number).starts)
        return self._drawn[1:]
