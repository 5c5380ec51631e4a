"""Elman's simple recurrent network."""

from __future__ import annotations

from ritornello import ops
from ritornello.cells._recurrent import GatedCell, activation_of
from ritornello.typing import Tensor

__all__ = ["ElmanCell"]


class ElmanCell(GatedCell):
    """h_t = φ(W x_t + R h_{t−1} + b), φ = tanh or relu: the equations of ``torch.nn.RNN``, its two biases as their sum.

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrix is block-diagonal with as many blocks; 1: dense.
        activation: ``"tanh"`` or ``"relu"``.

    Source: Elman 1990, "Finding structure in time"; relu: Le et al. 2015, arXiv:1504.00941.
    """

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1, activation: str = "tanh"):
        super().__init__(input_size, hidden_size, heads)
        self.activation, self.phi = activation, activation_of(self, activation)

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        return self.phi((u.to(h.dtype) + self.recurrent(h)).squeeze(1))

    def fused(self, u: Tensor, h: Tensor, cu_seqlens: Tensor | None = None):
        return ops.elman(u.squeeze(2), self.weight_hh[0], h, self.activation, cu_seqlens=cu_seqlens)
