"""Bits per byte of a model on documents."""

from __future__ import annotations

import math

import torch

from ritornello import state as states
from ritornello.models import LanguageModel
from ritornello.train.batches import Tokens
from ritornello.typing import Tensor

__all__ = ["bits_per_byte"]

ROWS, WINDOW = 16, 512


@torch.no_grad()
def bits_per_byte(model: LanguageModel, tokens: Tokens, device: torch.device | str = "cpu") -> float:
    """Σ −log₂ p(token | those before it in its document) / bytes of text.

    Every document is read from its beginning with an empty state and in windows, so its length is no matter of memory.
    What is predicted is its tokens; the boundary id before the first is given, the end is not asked for.
    """
    was_training = model.training
    model.eval()
    documents = [tokens.ids[a:b] for a, b in zip(tokens.starts, tokens.starts[1:], strict=False) if b - a > 1]
    documents.sort(key=len, reverse=True)
    nats = sum(_nats(model, documents[i : i + ROWS], device) for i in range(0, len(documents), ROWS))
    model.train(was_training)
    return nats / math.log(2) / max(1, tokens.nbytes)


def _nats(model: LanguageModel, documents: list[Tensor], device: torch.device | str) -> float:
    """The loss of documents side by side, longest first; rows that have ended are dropped from the state."""
    nats, state, rows = 0.0, None, len(documents)
    for first in range(0, len(documents[0]) - 1, WINDOW):
        live = sum(len(d) - 1 > first for d in documents)
        if state is not None and live < rows:
            state = states.rows(state, slice(0, live))
        rows = live
        pieces = [d[first : first + WINDOW + 1].long() for d in documents[:rows]]
        longest = max(map(len, pieces))
        ids = torch.zeros(rows, longest, dtype=torch.long)
        targets = torch.full((rows, longest), -100)
        for row, piece in enumerate(pieces):  # shorter rows end here: what follows them is not counted
            ids[row, : len(piece)], targets[row, : len(piece)] = piece, piece
        loss, state = model.loss(
            ids[:, :-1].to(device), targets[:, 1:].to(device), state, reduction="sum", return_state=True
        )
        nats += float(loss)
    return nats
