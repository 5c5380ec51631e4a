"""What is trained: a model with the state that its rows carry from one batch to the next."""

from __future__ import annotations

from torch import nn

from ritornello import state as states
from ritornello.models import LanguageModel
from ritornello.state import State
from ritornello.typing import Tensor

__all__ = ["Objective"]


class Objective(nn.Module):
    """forward → the mean cross-entropy of a batch in nats.

    The carried state lives here, not in arguments, so that what wraps the module (DDP, FSDP2) need not know it.

    Args:
        model: a LanguageModel.
        carry: whether a batch that is not `fresh` goes on from the state of the batch before.
        balance: how much of the loss that keeps the loads of routers even is added.
    """

    def __init__(self, model: LanguageModel, carry: bool, balance: float = 0.0):
        super().__init__()
        self.model, self.carry, self.balance = model, carry, balance
        self.carried: State | None = None

    def forward(self, ids: Tensor, targets: Tensor, cu_seqlens: Tensor | None, fresh: bool) -> Tensor:
        before = None if fresh or self.carried is None else states.detach(self.carried)
        loss, after = self.model.loss(
            ids, targets, before, cu_seqlens=cu_seqlens, return_state=True, balance=self.balance
        )
        self.carried = states.detach(after) if self.carry else None
        return loss
