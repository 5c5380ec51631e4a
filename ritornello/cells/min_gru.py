"""minGRU: a GRU whose gates see the input only."""

from __future__ import annotations

from torch import nn

from ritornello.cell import AffineCell
from ritornello.transition import Gated
from ritornello.typing import Tensor

__all__ = ["MinGRUCell"]


class MinGRUCell(AffineCell):
    """h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ g(W_h x_t), z_t = σ(W_z x_t).

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        log_space: g(x) = x + ½ for x ≥ 0 and σ(x) below, the paper's candidate that its log-space scan needs to be
            positive (the default, so that numbers agree with it); False: g(x) = x.

    Source: Feng et al. 2024, "Were RNNs All We Needed?", arXiv:2410.01201, section 3.1 and appendix B.
    """

    def __init__(self, input_size: int, hidden_size: int, log_space: bool = True):
        super().__init__()
        self.state_shape = (hidden_size,)
        self.log_space = log_space
        self.proj = nn.Linear(input_size, 2 * hidden_size, bias=False)

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.proj(x).chunk(2, -1)  # type: ignore[return-value]

    def transition(self, u: tuple[Tensor, Tensor]) -> Gated:
        candidate, gate = u
        return Gated(gate, candidate, "positive" if self.log_space else None)
