"""h ← a ⊙ h + b, step by step."""

from __future__ import annotations

from ritornello.kernels.reference._loop import loop


def forward(a, b, state, cu_seqlens, save):
    def step(a, b, h):
        h = a * h + b
        return h, (h,)

    return loop(step, (a, b), (state,), b, cu_seqlens)
