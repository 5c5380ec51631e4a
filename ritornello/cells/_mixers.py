"""The matrices Q that mix the channels of a fixed-point RNN: from numbers for each step, never formed in full."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["MIXERS"]

EPS = 1e-6


class HouseholderMixer(nn.Module):
    """Q v for Q = Π_i (1 − α_i u_i u_iᵀ), the first factor applied first; u_i of length 1, 0 < α_i < 1.

    Args:
        size: of v.
        rank: factors.
    """

    def __init__(self, size: int, rank: int):
        super().__init__()
        if rank < 1:
            raise InputError(f"`rank` of FPRNNCell is {rank}; wanted at least 1.")
        self.vectors, self.gates = rank * size, rank

    def forward(self, vectors: Tensor, gates: Tensor, v: Tensor) -> Tensor:
        """vectors (..., rank · size) and gates (..., rank) before their activations, v (..., size)."""
        units = F.normalize(F.silu(vectors.unflatten(-1, (self.gates, -1))), dim=-1, eps=EPS).unbind(-2)
        for unit, alpha in zip(units, torch.sigmoid(gates).split(1, -1), strict=True):
            v = v - alpha * unit * (unit * v).sum(-1, keepdim=True)
        return v


class KroneckerMixer(nn.Module):
    """Q v for Q = 1 − K ⊗ K', K = diag(d) U Uᵀ / |U Uᵀ|, U upper triangular and 0 < d < 1; v is read as a matrix by
    rows, the sides of which are as near to each other as its size has divisors.

    Args:
        size: of v.
    """

    def __init__(self, size: int, rank: int):
        super().__init__()
        if rank != 1:
            raise InputError(
                f"`rank` of FPRNNCell is {rank} with the mixer 'kronecker', which has none. Leave it at 1."
            )
        first = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
        self.sides = first, size // first
        self.triangles = [n * (n + 1) // 2 for n in self.sides]
        self.vectors, self.gates = sum(self.triangles), sum(self.sides)

    def forward(self, vectors: Tensor, gates: Tensor, v: Tensor) -> Tensor:
        """vectors (..., triangles) and gates (..., sides) before their activations, v (..., size)."""
        parts = zip(vectors.split(self.triangles, -1), gates.split(self.sides, -1), self.sides, strict=True)
        one, two = (self._factor(F.silu(u), torch.sigmoid(d), n) for u, d, n in parts)
        return v - (one @ v.unflatten(-1, self.sides) @ two.mT).flatten(-2)

    @staticmethod
    def _factor(triangle: Tensor, d: Tensor, side: int) -> Tensor:
        # Placed by a product, not by indices: it is a few numbers, and forward derivatives go through it.
        where = torch.triu_indices(side, side, device=triangle.device)
        place = F.one_hot(where[0] * side + where[1], side * side).to(triangle)
        upper = (triangle @ place).unflatten(-1, (side, side))
        square = upper @ upper.mT
        size = torch.linalg.eigvalsh(square)[..., -1:, None]
        return d.unsqueeze(-1) * square / (size + EPS)


MIXERS = {"householder": HouseholderMixer, "kronecker": KroneckerMixer}
