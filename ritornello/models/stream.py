"""Streams: a model that reads what it writes, one id at a time, from a state that can be kept.

A stream has at any time read everything before `unread`, the last id of each row; the next step reads that one. So a
stream goes on from ``(unread, state)`` as if it had never stopped, and nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.dropout import _DropoutNd

from ritornello import state as states
from ritornello.errors import CheckpointError, InputError
from ritornello.models.reader import Reader
from ritornello.models.sample import Sampler
from ritornello.models.tokens import Tokenizer
from ritornello.state import State
from ritornello.typing import Tensor

if TYPE_CHECKING:
    from ritornello.models.language_model import LanguageModel

__all__ = ["Stream", "TextStream", "load_stream"]

WINDOW = 4096
"""A prompt is read in windows of so many steps: memory does not grow with its length."""


class Stream:
    """An iterator of ids (B,); made by ``model.stream``.

    Attributes:
        unread: (B, 1) the last id of each row, which the model has not read yet.
    """

    def __init__(
        self,
        model: LanguageModel,
        ids: Tensor,
        state: State | None,
        mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        *,
        stop: int | Iterable[int] = (),
        **sampling,
    ):
        self._sampler = Sampler(**sampling)
        if max_new_tokens is not None and max_new_tokens < 0:
            raise InputError(f"`max_new_tokens` is {max_new_tokens}; wanted 0 or more, or None for no end.")
        self._model, self._left = model, max_new_tokens
        self._noisy = any(isinstance(m, _DropoutNd) for m in model.modules())  # to switch modes costs a tenth of a step
        self._stop = torch.tensor([stop] if isinstance(stop, int) else list(stop), dtype=torch.long)
        self._ended: Tensor | None = None
        self.unread, before, mask = _split(ids, mask)
        self._reader = Reader(model, model.initial_state(ids.shape[0]) if state is None else state)
        for start in range(0, before.shape[1], WINDOW):
            span = slice(start, start + WINDOW)
            self._read(before[:, span], "none", None if mask is None else mask[:, span])

    @property
    def state(self) -> State:
        """What has been read: everything before `unread`. It stays as it is while the stream goes on."""
        return self._reader.state

    def save(self, path: str | Path) -> None:
        """Write the state with the unread ids beside it; `load_stream` reads them."""
        states.save(self.state, path, {"unread": self.unread.tolist()})

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Tensor:
        if self._left == 0 or (self._ended is not None and bool(self._ended.all())):
            raise StopIteration
        live = None if self._ended is None or not bool(self._ended.any()) else ~self._ended.unsqueeze(1)
        ids = self._sampler(self._read(self.unread, "last", live))
        if live is not None:
            ids = torch.where(live[:, 0], ids, self.unread[:, 0])
        if self._stop.numel():
            self._ended = torch.isin(ids, self._stop.to(ids.device))
        if self._left is not None:
            self._left -= 1
        self.unread = ids.unsqueeze(1)
        return ids

    def _read(self, ids: Tensor, logits: str, mask: Tensor | None) -> Tensor:
        training = self._noisy and self._model.training
        if training:
            self._model.eval()  # no dropout while it writes
        try:
            return self._reader.read(ids, mask, logits, self._left)
        finally:
            if training:
                self._model.train()


class TextStream:
    """An iterator of strings; made by ``model.stream_text``. A character of several ids comes when it is whole."""

    def __init__(self, stream: Stream, tokens: Tokenizer):
        if stream.unread.shape[0] != 1:
            raise InputError(f"The prompt has {stream.unread.shape[0]} rows; text is streamed from one. Use `stream`.")
        self.stream, self._decoder, self._done = stream, tokens.decoder(), False

    @property
    def state(self) -> State:
        """As of `Stream`."""
        return self.stream.state

    @property
    def unread(self) -> Tensor:
        """As of `Stream`."""
        return self.stream.unread

    def save(self, path: str | Path) -> None:
        """As of `Stream`."""
        self.stream.save(path)

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        while not self._done:
            ids = next(self.stream, None)
            self._done = ids is None
            text = self._decoder.flush() if ids is None else self._decoder.add(int(ids))
            if text:
                return text
        raise StopIteration


def load_stream(path: str | Path, device: torch.device | str = "cpu") -> tuple[Tensor, State]:
    """What `Stream.save` wrote, as the first two arguments of ``model.stream``: the unread ids and the state.

    Raises:
        CheckpointError: no such file, a broken one, or a state without unread ids.
    """
    state, extra = states.load_with_extra(path, device)
    if not isinstance(extra, dict) or "unread" not in extra:
        raise CheckpointError(
            f"{str(path)!r} holds a state, but not the ids that a stream had yet to read. Give model.stream the state "
            "and a prompt, or save with stream.save."
        )
    return torch.tensor(extra["unread"], dtype=torch.long, device=device), state


def _split(ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The last id of each row (B, 1), and what is to be read before it: ids and their mask."""
    fits = isinstance(ids, torch.Tensor) and ids.dim() == 2
    if not fits or ids.shape[1] == 0 or (mask is not None and mask.shape == ids.shape and not mask.any(1).all()):
        got = tuple(ids.shape) if isinstance(ids, torch.Tensor) else type(ids).__name__
        raise InputError(
            f"The prompt is {got} with a row that has no ids; wanted (B, T) integers, at least one id a row: text, an "
            "id that begins a text, or the `unread` of an earlier stream."
        )
    if mask is None:
        return ids[:, -1:], ids[:, :-1], None
    if mask.shape != ids.shape or mask.dtype != torch.bool:
        raise InputError(f"`mask` is {tuple(mask.shape)} {mask.dtype}; wanted {tuple(ids.shape)} bool.")
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1, keepdim=True)
    return ids.gather(1, last), ids, mask.scatter(1, last, False)
