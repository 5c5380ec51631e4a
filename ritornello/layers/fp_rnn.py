"""The fixed-point RNN."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.cells.fp_rnn import FPRNNCell
from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.cells import cell_leaves, run_cell
from ritornello.layers.parts.gates import NormOfGated

__all__ = ["FPRNN"]


class FPRNN(Layer):
    """h_t = λ ⊙ h_{t−1} + (1 − λ) ⊙ (Q (b ⊙ x) + (1 − Q) h_t): a dense recurrence, as the fixed point of a diagonal one
    between whose scans Q mixes the channels; λ = σ(W_λ x), b = silu(W_b x), Q of x_t and h_{t−1}.
    y = W_o RMSNorm(c ⊙ h ⊙ silu(z)), c = silu(W_c [x_t, h_{t−1}]), with x, z = W_in u for the layer's input u.

    Args:
        width: of u.
        expand: channels of x and h for each of u.
        mixer: the form of Q: ``"householder"``, a product of 1 − α u uᵀ, or ``"kronecker"``, 1 − K ⊗ K'.
        rank: factors of ``"householder"``.
        memory: whether Q sees h_{t−1}; without, the recurrence is linear.

    Source: Movahedi et al. 2025, arXiv:2503.10799, eq. 8; block as in the authors' code.
    """

    kind = "fp_rnn"
    traits = Traits(
        About(
            "Fixed-point RNN",
            "Movahedi et al. 2025, Fixed-Point RNNs: Interpolating from Diagonal to Dense, arXiv:2503.10799",
            "implicit",
            "h_t = λ ⊙ h_{t−1} + (1 − λ) ⊙ (Q (b ⊙ x_t) + (1 − Q) h_t), solved for h_t",
        ),
        affine=False,
    )

    def __init__(
        self,
        width: int,
        *,
        expand: int = 2,
        mixer: str = "householder",
        rank: int = 1,
        memory: bool = True,
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, expand=expand)
        size = expand * width
        self.in_proj = nn.Linear(width, 2 * size, bias=False)
        self.cell = FPRNNCell(size, mixer, rank, memory)
        self.c_proj = nn.Linear(2 * size, size, bias=False)
        self.norm = NormOfGated(size)
        self.out_proj = nn.Linear(size, width, bias=False)
        self.spec = {"channels": size}

    def leaves(self):
        return cell_leaves(self.cell, ("h",))

    def mix(self, x, state, call: Call):
        x, z = self.in_proj(x).chunk(2, -1)
        h, new = run_cell(call, self.cell, ("h",), x, state)
        before = call.sequence.shift(h, state["h"])[0]
        c = F.silu(self.c_proj(torch.cat([x, before], -1)))
        return self.out_proj(self.norm(c * h, z)), new
