"""A model that reads: the state of what it has read, from call to call, and single steps recorded once they repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ritornello.kernels.tape import NotRecordable
from ritornello.models.recorded import RecordedStep, recordable
from ritornello.state import State
from ritornello.typing import Tensor

if TYPE_CHECKING:
    from ritornello.models.language_model import LanguageModel

__all__ = ["Reader"]

WORTH_IT = 16
"""After so many single steps, with as many to come, a step is recorded, which takes about as long as ten of them."""

ROOM = 64
"""For so many steps a recording has memory where a state grows; the next one for twice as many."""


class Reader:
    """``reader.read(ids)`` goes on from all that it read before.

    Args:
        model: a language model; no gradients are kept.
        state: what came before; it is not changed.
    """

    def __init__(self, model: LanguageModel, state: State):
        self._model, self._state = model, state
        self._owned = False  # whether the state is ours alone, to be written in place
        self._inference = False  # whether it was made in inference mode
        self._recorded: RecordedStep | None = None
        self._steps, self._record_at = 0, float(WORTH_IT)

    @property
    def state(self) -> State:
        """What has been read, as a value that stays as it is."""
        if self._recorded is not None:
            return self._recorded.state()
        self._owned = False
        return self._state

    @torch.no_grad()
    def read(self, ids: Tensor, mask: Tensor | None = None, logits: str = "last", more: int | None = None) -> Tensor:
        """What the model says of `ids` (B, T), as of its `forward`. The next call may write over it.

        Args:
            more: how many single steps are to come, this one included, where it is known.
        """
        if ids.shape[1] == 1 and mask is None and logits == "last":
            played = self._play(ids, more)
            if played is not None:
                return played
        self._stop_playing()
        inference = torch.is_inference_mode_enabled()  # whose tensors may not be written to outside of it
        donate = self._owned and inference == self._inference
        out, self._state = self._model(ids, self._state, mask=mask, logits=logits, donate=donate)
        self._owned, self._inference = True, inference
        return out

    def _play(self, ids: Tensor, more: int | None) -> Tensor | None:
        """The logits of a step that is played, or has just been recorded; None where it is to be called."""
        self._steps += 1
        step, room = self._recorded, ROOM
        if step is not None:
            if step.holds():
                return step(ids)
            self._stop_playing()
            if step.left == 0:
                room = 2 * step.room
            else:  # somebody touched the model, and may do so again
                self._record_at = self._steps + WORTH_IT
        if self._steps < self._record_at or (more is not None and more < WORTH_IT):
            return None
        if not recordable(self._model):
            self._record_at = self._steps + WORTH_IT
            return None
        try:
            self._recorded = RecordedStep(self._model, ids, self._state, room)
        except NotRecordable:
            self._record_at = float("inf")
            return None
        return self._recorded.y

    def _stop_playing(self) -> None:
        if self._recorded is not None:
            self._state, self._recorded = self._recorded.state(), None
            self._owned = False
