"""Training that begins where other sequences ended."""

from __future__ import annotations

from ritornello import state as states
from ritornello.lab.compare.trial import Learner
from ritornello.typing import Tensor

__all__ = ["StatePassing"]


class StatePassing(Learner):
    """h₀ of a batch is h_T of the batch before, without gradients; the first begins as always.

    The batches need not go on where those before them ended: it is the states of long texts that are to be met in
    training. Buitrago & Gu 2025, arXiv:2507.02782.
    """

    carried: states.State | None = None

    def _hidden(self, inputs: Tensor) -> Tensor:
        hidden, after = self.model.hidden(inputs, self.carried)
        self.carried = states.detach(after)
        return hidden
