"""y_t = act(bias + Σ_j weight_j ⊙ x_{t−W+1+j}), step by step."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from ritornello.kernels.reference._loop import loop
from ritornello.typing import accumulation_dtype


def forward(x, weight, bias, state, cu_seqlens, activation, save):
    wide = accumulation_dtype(x.dtype)
    taps = weight.to(wide)

    def step(x, window):
        full = torch.cat([window, x.unsqueeze(-1)], -1)
        y = (full * taps).sum(-1)
        if bias is not None:
            y = y + bias.to(wide)
        return silu(y) if activation == "silu" else y, (full[..., 1:],)

    (y, last), trace = loop(step, (x,), (state.to(wide),), x, cu_seqlens)
    return (y, last.to(x.dtype)), trace
