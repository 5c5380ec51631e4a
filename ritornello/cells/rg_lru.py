"""The real-gated linear recurrent unit of Griffin."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cell import AffineCell
from ritornello.errors import InputError
from ritornello.transition import Diagonal
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["RGLRUCell"]

SHARPNESS, MAX_SLOPE = 8.0, 1000.0


class RGLRUCell(AffineCell):
    """h_t = a_t ⊙ h_{t−1} + √(1 − a_t²) ⊙ i_t ⊙ x_t, log a_t = −8 softplus(Λ) ⊙ r_t, r and i = σ(W x_t + b).

    Where a sequence starts, a = 0 and the factor √(1 − a²) is 1: the first state is i ⊙ x.

    It is given x (B, T, size), or a pair of that and (B, T) bool: which steps start a sequence (none, for x alone).

    Args:
        size: of x and h.
        heads: the matrices of both gates are block-diagonal with as many blocks; 1: dense.

    Source: De et al. 2024, arXiv:2402.19427, section 2.4 and appendix A; first steps, the bound on the square root's
    slope and the initialisation (a, at r = 1/8, uniform by area in the ring 0.9 … 0.999) as in the authors'
    recurrentgemma.
    """

    def __init__(self, size: int, heads: int = 1):
        super().__init__()
        if heads < 1 or size % heads:
            raise InputError(f"`heads` of RGLRUCell is {heads}, which does not divide `size` = {size}.")
        self.state_shape = (size,)
        block = size // heads
        self.weight = nn.Parameter(torch.randn(2, heads, block, block) / block**0.5)  # [r or i, head, out, in]
        self.bias = nn.Parameter(torch.zeros(2, size))
        squared = torch.empty(size).uniform_(0.9**2, 0.999**2)
        self.Lambda = nn.Parameter(torch.expm1(-0.5 * squared.log()).log())  # softplus(Λ) = −½ log a²

    def drive(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, starts = x if isinstance(x, tuple) else (x, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device))
        blocks = x.unflatten(-1, self.weight.shape[1:3])
        gates = torch.einsum("bthi,ghoi->btgho", blocks, self.weight).flatten(-2)
        wide = accumulation_dtype(x.dtype)
        r, i = torch.sigmoid(gates.to(wide) + self.bias.to(wide)).unbind(2)
        return x, starts.unsqueeze(-1), torch.stack([-SHARPNESS * F.softplus(self.Lambda.to(wide)) * r, i], 2)

    def transition(self, u: tuple[Tensor, Tensor, Tensor]) -> Diagonal:
        x, starts, gates = u
        log_a, i = gates.unbind(2)
        a = torch.where(starts, 0.0, log_a.exp())
        factor = torch.where(starts, 1.0, _BoundedSqrt.apply(-torch.expm1(2 * log_a)))
        return Diagonal(a, factor * i * x.to(i.dtype))

    def finish(self, u: tuple[Tensor, Tensor, Tensor], o: Tensor) -> Tensor:
        return o.to(u[0].dtype)


class _BoundedSqrt(torch.autograd.Function):
    """√x, whose slope 1/(2√x) is cut off at 1000: it is infinite where a gate lets a = 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sqrt()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad / (4 * x).clamp(min=MAX_SLOPE**-2).sqrt()
