"""S' = diag(d) S, S ← S' + β k (v − S'ᵀk)ᵀ, o = scale · Sᵀ q, in chunks.

With a scalar decay, in a chunk that starts from S₀: S_i = P_i S₀ + Σ_{j≤i} P_ij k_j u_jᵀ, where the rows of U solve
u_i = β_i (v_i − P_i S₀ᵀk_i − Σ_{j<i} P_ij (k_i · k_j) u_j), a unit triangular system: U = U₀ − W S₀.
A vector decay is the map diag(d) − β k (d ⊙ k)ᵀ, diagonal plus low rank: see `dplr`.

Yang et al. 2024, arXiv:2412.06464, section 3.3.
"""

from __future__ import annotations

import torch

from ritornello.kernels.torch import dplr
from ritornello.kernels.torch._chunk import UnitLowerInverse, carry, chunked, expand_heads, scalar_decays, unchunked
from ritornello.kernels.torch._window import Windowed
from ritornello.kernels.torch.linear_attention import window_steps
from ritornello.typing import accumulated

CHUNK = 64


def _scalar(q, k, v, beta, log_decay, decay, state, scale):
    batch, steps, heads = v.shape[:3]
    q, k = (chunked(expand_heads(x, heads), CHUNK) for x in (q, k))
    v, beta = chunked(v, CHUNK), chunked(beta, CHUNK).unsqueeze(-1)
    log_decay = None if log_decay is None else chunked(log_decay, CHUNK)
    decay = None if decay is None else chunked(decay, CHUNK, fill=1.0)
    decays = scalar_decays(log_decay, decay, k)
    since = decays.since.unsqueeze(-1)

    scaled = beta * k
    solved = UnitLowerInverse.apply((scaled @ k.mT) * decays.between)
    u, w = solved @ (beta * v), solved @ (scaled * since)

    written = (decays.until_end.unsqueeze(-1) * k).mT
    identity = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    whole = decays.whole.unsqueeze(-1)
    before, last = carry(whole * identity - written @ w, written @ u, state.flatten(0, 1), matrix=True)
    weights = (q @ k.mT) * decays.between
    output = weights @ (u - w @ before) + (since * q) @ before
    return unchunked(scale * output, batch, steps), last.reshape(state.shape)


def _window(q, k, v, beta, log_decay, decay, state, scale):
    dtype = v.dtype
    q, k, v = (accumulated(x) for x in (q, k, v))
    gate = decay if log_decay is None else log_decay
    if gate is None or gate.dim() == 3:
        output, last = _scalar(q, k, v, beta, log_decay, decay, state, scale)
    else:
        q, k = (expand_heads(x, v.shape[2]) for x in (q, k))
        written = beta.unsqueeze(-1) * k
        read = k * (decay if log_decay is None else log_decay.exp())
        output, last = dplr.transform(q, written, v, read, -written, log_decay, decay, state, scale)
    return output.to(dtype), last


_kernel = Windowed(
    _window, "tttttts", (0.0, 0.0, 0.0, 0.0, 0.0, 1.0), lambda q, k, v, beta, g, d, S: window_steps(k, v, g, d)
)
forward, backward = _kernel.forward, _kernel.backward
