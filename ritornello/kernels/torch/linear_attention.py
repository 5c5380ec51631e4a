"""S ← diag(d) S + k vᵀ, o = scale · Sᵀ q, in chunks.

Inside a chunk that starts from S₀, with P_ij the product of the decays over j < s ≤ i and P_i over s ≤ i:
o_i = Σ_{j≤i} (q_i · P_ij ⊙ k_j) v_j + S₀ᵀ (P_i ⊙ q_i), and S₀ ← diag(P_C) S₀ + Σ_j (P_Cj ⊙ k_j) v_jᵀ.
A scalar decay weighs the products q_i · k_j, in chunks of 64; a vector decay stands inside them, in chunks of 16.

Yang et al. 2023, arXiv:2312.06635, section 4.
"""

from __future__ import annotations

import torch

from ritornello.kernels.torch._chunk import (
    Decays,
    carry,
    chunked,
    expand_heads,
    scalar_decays,
    unchunked,
    vector_decays,
)
from ritornello.kernels.torch._window import Windowed
from ritornello.typing import Tensor, accumulated

SCALAR_CHUNK, VECTOR_CHUNK = 64, 16


def attend(q, k, v, log_decay, decay, bonus, state, scale):
    """The window of the kernel, in the accumulation dtype."""
    batch, steps, heads = v.shape[:3]
    gate = decay if log_decay is None else log_decay
    vector = gate is not None and gate.dim() == 4
    size = VECTOR_CHUNK if vector else SCALAR_CHUNK
    q, k = (chunked(expand_heads(x, heads), size) for x in (q * scale, k))
    v = chunked(v, size)
    log_decay = None if log_decay is None else chunked(log_decay, size)
    decay = None if decay is None else chunked(decay, size, fill=1.0)
    decays = vector_decays(log_decay, decay) if vector else scalar_decays(log_decay, decay, k)
    seen = decays if bonus is None else decays.before()
    weights = _weights(q, k, seen)
    if bonus is not None:
        u = bonus.repeat(batch, 1).unsqueeze(1)
        weights = weights + torch.diag_embed((q * u * k).sum(-1))
    wide = (lambda x: x) if vector else (lambda x: x.unsqueeze(-1))
    added = (wide(decays.until_end) * k).mT @ v
    whole = decays.whole.mT if vector else decays.whole.unsqueeze(-1)
    before, last = carry(whole.expand(*v.shape[:2], -1, 1), added, state.flatten(0, 1), matrix=False)
    output = weights @ v + (wide(seen.since) * q) @ before
    return unchunked(output, batch, steps), last.reshape(state.shape)


def _weights(q: Tensor, k: Tensor, decays: Decays) -> Tensor:
    """q_i · P_ij ⊙ k_j, (..., i, j)."""
    if not decays.vector:
        return (q @ k.mT) * decays.between
    # One matrix-vector product for each j: (i, K) by (K, 1).
    rows = (decays.between * q.unsqueeze(-2)).transpose(-2, -3)
    return (rows @ k.unsqueeze(-1)).squeeze(-1).mT


def _window(q, k, v, log_decay, decay, bonus, state, scale):
    out, last = attend(accumulated(q), accumulated(k), accumulated(v), log_decay, decay, bonus, state, scale)
    return out.to(v.dtype), last


def window_steps(k: Tensor, v: Tensor, *gates: Tensor | None) -> int:
    """Steps of a window: 2048, or as many as keep its vector decays, 16 × K a step and head, within 2²³ numbers."""
    if all(g is None or g.dim() == 3 for g in gates):
        return 2048
    fit = 2**23 // (VECTOR_CHUNK * v.shape[0] * v.shape[2] * k.shape[3])
    return min(max(fit // 64 * 64, 64), 2048)


_kernel = Windowed(_window, "tttttps", (0.0, 0.0, 0.0, 0.0, 1.0), lambda q, k, v, g, d, u, S: window_steps(k, v, g, d))
forward, backward = _kernel.forward, _kernel.backward
