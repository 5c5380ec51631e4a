"""minLSTM: an LSTM whose gates see the input only."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from ritornello.cell import AffineCell
from ritornello.transition import Gated
from ritornello.typing import Tensor

__all__ = ["MinLSTMCell"]


class MinLSTMCell(AffineCell):
    """h_t = f/(f + i) ⊙ h_{t−1} + i/(f + i) ⊙ g(W_h x_t), f = σ(W_f x_t), i = σ(W_i x_t): the gates' sum is one.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        log_space: g(x) = x + ½ for x ≥ 0 and σ(x) below, the paper's candidate that its log-space scan needs to be
            positive (the default, so that numbers agree with it); False: g(x) = x.

    Source: Feng et al. 2024, "Were RNNs All We Needed?", arXiv:2410.01201, section 3.2 and appendix B.
    """

    def __init__(self, input_size: int, hidden_size: int, log_space: bool = True):
        super().__init__()
        self.state_shape = (hidden_size,)
        self.log_space = log_space
        self.proj = nn.Linear(input_size, 3 * hidden_size, bias=False)

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        candidate, forget, enter = self.proj(x).chunk(3, -1)
        # i/(f + i) = σ(log i − log f): no division of two numbers that underflow together.
        gate = F.softplus(-forget) - F.softplus(-enter)
        return gate, candidate

    def transition(self, u: tuple[Tensor, Tensor]) -> Gated:
        gate, candidate = u
        return Gated(gate, candidate, "positive" if self.log_space else None)
