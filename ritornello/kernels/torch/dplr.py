"""S ← (diag(d) + b aᵀ) S + k vᵀ, o = scale · Sᵀ q, in chunks of 16.

In a chunk that starts from S₀, r_i = S_{i−1}ᵀ a_i solves a unit triangular system,
r_i = Σ_{j<i} (a_i · P_{i−1,j} ⊙ b_j) r_j + Σ_{j<i} (a_i · P_{i−1,j} ⊙ k_j) v_j + S₀ᵀ (P_{i−1} ⊙ a_i),
and S_i = diag(P_i) S₀ + Σ_{j≤i} (P_ij ⊙ b_j) r_jᵀ + (P_ij ⊙ k_j) v_jᵀ, with P_ij the decays' product over j < s ≤ i.

Peng et al. 2025, arXiv:2503.14456; Yang et al. 2024, arXiv:2406.06484, section 3.2 for the triangular form.
"""

from __future__ import annotations

import torch

from ritornello.kernels.torch._chunk import (
    Decays,
    UnitLowerInverse,
    carry,
    chunked,
    expand_heads,
    unchunked,
    vector_decays,
)
from ritornello.kernels.torch._window import Windowed
from ritornello.kernels.torch.linear_attention import VECTOR_CHUNK, window_steps
from ritornello.typing import Tensor, accumulated


def transform(q, k, v, a, b, log_decay, decay, state, scale):
    """The recurrence over a window, with `log_decay` or `decay` a vector for each step, in the accumulation dtype."""
    batch, steps = v.shape[:2]
    q, k, v, a, b = (chunked(x, VECTOR_CHUNK) for x in (q * scale, k, v, a, b))
    log_decay = None if log_decay is None else chunked(log_decay, VECTOR_CHUNK)
    decay = None if decay is None else chunked(decay, VECTOR_CHUNK, fill=1.0)
    decays = vector_decays(log_decay, decay)
    earlier = decays.before()

    ab, ak = _weights(a, b, k, earlier)
    qb, qk = _weights(q, b, k, decays)
    solved = UnitLowerInverse.apply(-ab)
    r, w = solved @ (ak @ v), solved @ (a * earlier.since)

    b_end, k_end = ((decays.until_end * x).mT for x in (b, k))
    transition = torch.diag_embed(decays.whole.squeeze(-2)) + b_end @ w
    before, last = carry(transition, b_end @ r + k_end @ v, state.flatten(0, 1), matrix=True)
    output = qb @ (r + w @ before) + qk @ v + (q * decays.since) @ before
    return unchunked(output, batch, steps), last.reshape(state.shape)


def _weights(reader: Tensor, b: Tensor, k: Tensor, decays: Decays) -> tuple[Tensor, Tensor]:
    """reader_i · P_ij ⊙ b_j and reader_i · P_ij ⊙ k_j, each (..., i, j)."""
    rows = (decays.between * reader.unsqueeze(-2)).transpose(-2, -3)
    both = rows @ torch.stack([b, k], -1)  # for each j, (i, K) by (K, 2)
    return both[..., 0].mT, both[..., 1].mT


def _window(q, k, v, a, b, log_decay, state, scale):
    dtype, heads = v.dtype, v.shape[2]
    q, k, a, b = (expand_heads(accumulated(x), heads) for x in (q, k, a, b))
    if log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1).expand_as(k)
    output, last = transform(q, k, accumulated(v), a, b, log_decay, None, state, scale)
    return output.to(dtype), last


_kernel = Windowed(
    _window,
    "tttttts",
    (0.0,) * 6,
    lambda q, k, v, a, b, g, S: window_steps(k, v, g.unsqueeze(-1) if g.dim() == 3 else g),
)
forward, backward = _kernel.forward, _kernel.backward
