"""h ← (1 − σ(gate)) ⊙ h + σ(gate) ⊙ g(value): the gates at all times at once, then the diagonal scan."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ritornello.kernels.torch import diagonal_scan
from ritornello.typing import Tensor, accumulated


def forward(gate, value, state, cu_seqlens, activation, save):
    a, b = _affine(gate, value, activation)
    (h, last), trace = diagonal_scan.forward(a, b, state, cu_seqlens, save)
    return (h.to(value.dtype), last), trace


def trace_size(gate, value, state, cu_seqlens, activation):
    return diagonal_scan.trace_size(gate, value, state, cu_seqlens)


def backward(grads, trace, needs, gate, value, state, cu_seqlens, activation):
    with torch.enable_grad():
        inputs = gate.detach().requires_grad_(), value.detach().requires_grad_()
        a, b = _affine(*inputs, activation)
    da, db, dstate, _ = diagonal_scan.backward(grads, trace, needs, a.detach(), b.detach(), state, cu_seqlens)
    return *torch.autograd.grad([a, b], inputs, [da.to(a.dtype), db.to(b.dtype)]), dstate, None


def _affine(gate: Tensor, value: Tensor, activation: str | None) -> tuple[Tensor, Tensor]:
    """a = σ(−gate) and b = σ(gate) ⊙ g(value), in float32 or wider."""
    gate, value = accumulated(gate), accumulated(value)
    if activation == "positive":
        value = torch.where(value >= 0, F.relu(value) + 0.5, torch.sigmoid(value))
    elif activation is not None:
        value = torch.tanh(value) if activation == "tanh" else F.silu(value)
    return torch.sigmoid(-gate), torch.sigmoid(gate) * value
