"""The fixed-point RNN: a dense recurrence as the fixed point of diagonal ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells._mixers import MIXERS
from ritornello.errors import InputError, nearest
from ritornello.implicit import ImplicitCell
from ritornello.sequence import Sequence
from ritornello.transition import Diagonal
from ritornello.typing import Tensor

__all__ = ["FPRNNCell"]


class FPRNNCell(ImplicitCell):
    """h_t = λ_t ⊙ h_{t−1} + (1 − λ_t) ⊙ (Q_t (b_t ⊙ x_t) + (1 − Q_t) h_t): the state stands on both sides, so that Q
    mixes its channels while what is scanned is diagonal. λ = σ(W_λ x + bias), b = silu(W_b x).

    Q is made of vectors V [x_t, h_{t−1}] and gates G [x_t, h_{t−1}] + bias:

        ``"householder"``  Q = Π_i (1 − α_i u_i u_iᵀ), u_i = silu(V_i ·) divided by its length, α_i = σ(G_i ·)
        ``"kronecker"``    Q = 1 − K ⊗ K', K = diag(σ(G ·)) U Uᵀ / |U Uᵀ|, U the upper triangle silu(V ·)

    so that λ and 1 − Q are contractions, and the equation for h_t, linear in it, has one solution.

    Args:
        size: of x (B, T, size) and h.
        mixer: the form of Q.
        rank: factors of ``"householder"``.
        memory: whether Q sees h_{t−1}; the recurrence is then nonlinear.

    Source: Movahedi et al. 2025, arXiv:2503.10799, eq. 8 and sections 3.3 and C.3, and the authors' code. That doubles
    α and K, so that |1 − Q| may be 2 and no contraction, and normalises the weights V and G: both left out.
    """

    def __init__(self, size: int, mixer: str = "householder", rank: int = 1, memory: bool = True):
        super().__init__()
        if mixer not in MIXERS:
            raise InputError(f"`mixer` of FPRNNCell is {mixer!r}. {nearest(str(mixer), MIXERS)}")
        self.state_shape = (size,)
        self.mixer = MIXERS[mixer](size, rank)
        self.b_proj = nn.Linear(size, size, bias=False)
        self.lambda_proj = nn.Linear(size, size)
        # V and G as one matrix over [x, h]; the part for x belongs to what drives the steps.
        bound = ((1 + memory) * size) ** -0.5
        rows = self.mixer.vectors + self.mixer.gates
        self.mixer_ih = nn.Parameter(torch.empty(rows, size).uniform_(-bound, bound))
        self.mixer_hh = nn.Parameter(torch.empty(rows, size).uniform_(-bound, bound)) if memory else None
        self.gate_bias = nn.Parameter(torch.empty(self.mixer.gates).uniform_(-bound, bound))

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.silu(self.b_proj(x)) * x, self.lambda_proj(x), F.linear(x, self.mixer_ih)

    def sweep(self, u: tuple[Tensor, Tensor, Tensor], y: Tensor, h: Tensor, sequence: Sequence):
        added, decay, numbers = (t.to(h.dtype) for t in u)
        if self.mixer_hh is not None:
            numbers = numbers + F.linear(sequence.shift(y, h)[0], self.mixer_hh.to(h.dtype))
        vectors, gates = numbers.split([self.mixer.vectors, self.mixer.gates], -1)
        mixed = self.mixer(vectors, gates + self.gate_bias.to(h.dtype), added - y) + y
        step = Diagonal(torch.sigmoid(decay), torch.sigmoid(-decay) * mixed)
        if sequence.length == 1 and sequence.cu_seqlens is None:
            new = step.map(lambda t: t[:, 0]).apply(h)
            return new.unsqueeze(1), new
        return step.scan(h, sequence.cu_seqlens)

    def finish(self, u: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
        return y.to(u[0].dtype)
