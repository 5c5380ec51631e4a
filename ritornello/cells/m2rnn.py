"""M²RNN: a nonlinear recurrence on matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ritornello import ops
from ritornello.cell import Cell
from ritornello.errors import InputError
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["M2RNNCell"]


class _Outputs(NamedTuple):
    """What the op has already read of the states, in their place."""

    o: Tensor


class M2RNNCell(Cell):
    """S_t = f_t S_{t−1} + (1 − f_t) tanh(S_{t−1} W + k_t v_tᵀ), o_t = S_tᵀ q_t, one matrix S (K, V) for each head.

    It is given x = (q, k, v, f): q and k (B, T, H, K), v (B, T, Hv, V), f (B, T, Hv) in [0, 1]; value head j uses query
    and key head j // (Hv / H). The output is o (B, T, Hv, V).

    Args:
        value_heads, key_size, value_size: Hv, K, V; the state is (Hv, K, V).

    Source: Mishra et al. 2026, arXiv:2603.14360, and the authors' code; W starts as the identity.
    """

    def __init__(self, value_heads: int, key_size: int, value_size: int):
        super().__init__()
        for name, size in (("value_heads", value_heads), ("key_size", key_size), ("value_size", value_size)):
            if size < 1:
                raise InputError(f"`{name}` of M2RNNCell is {size}; wanted at least 1.")
        self.state_shape = (value_heads, key_size, value_size)
        self.weight = nn.Parameter(torch.eye(value_size).repeat(value_heads, 1, 1))

    def step(self, u: tuple[Tensor, Tensor, Tensor, Tensor], h: Tensor) -> Tensor:
        _, k, v, f = (t.to(h.dtype) for t in u)
        k = k.repeat_interleave(v.shape[1] // k.shape[1], 1)
        f = f[..., None, None]
        written = k.unsqueeze(-1) * v.unsqueeze(-2)
        return f * h + (1 - f) * torch.tanh(h @ self.weight.to(h.dtype) + written)

    def read(self, u: tuple[Tensor, Tensor, Tensor, Tensor], h: Tensor | _Outputs) -> Tensor:
        q, _, v, _ = u
        if isinstance(h, _Outputs):
            return h.o
        q = q.to(h.dtype).repeat_interleave(v.shape[2] // q.shape[2], 2)
        return (q.unsqueeze(-2) @ h).squeeze(-2).to(v.dtype)

    def fused(self, u: tuple[Tensor, Tensor, Tensor, Tensor], h: Tensor, cu_seqlens: Tensor | None = None):
        q, k, v, f = u
        o, last = ops.m2rnn(q, k, v, f.to(accumulation_dtype(v.dtype)), self.weight, h, cu_seqlens=cu_seqlens)
        return _Outputs(o), last
