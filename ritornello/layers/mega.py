"""MEGA."""

from __future__ import annotations

from typing import Any

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.ema import EMA
from ritornello.layers.parts.gated_attention import GatedAttention

__all__ = ["Mega"]


class Mega(Layer):
    """m = silu(Σ_n η_n h[n] / √N + ω ⊙ x), moving averages h ← (1 − α ⊙ δ) ⊙ h + α ⊙ β x_t;
    o_t = Σ_s softmax_s(q_t · k_s / √K + bias_{t−s}) v_s over the steps s ≤ t of t's chunk, q, k = κ ⊙ silu(W_z m) + μ,
    v = silu(W_v x); y = u ⊙ silu(W_h m + U (silu(W_r m) ⊙ o)) + (1 − u) ⊙ x, u = σ(W_u m).

    What lies before a chunk is seen through the moving averages alone. A model adds y to its stream, as it does with
    all layers; the authors' blocks put u between the stream itself and the candidate.

    Args:
        width: of x and y.
        state_size: N, moving averages of each channel.
        key_size: K, of the queries and keys; a quarter of the width where None.
        value_size: of v; twice the width where None.
        chunk_size: how many steps attend to each other.
        function: ``"softmax"``, or ``"laplace"``: ½ (1 + erf((s − √½) √(2π))) of each score for itself, with
            s = q_t · k_s / (how many steps t sees) + bias.
        positions: of the bias: ``"rotary"``, of as many numbers as a query has, or ``"simple"``, one number for each
            distance.

    Source: Ma et al. 2022, arXiv:2209.10655, section 3; sizes and initialisation as in the authors' language models.
    """

    kind = "mega"
    traits = Traits(
        About(
            "MEGA",
            "Ma et al. 2022, Mega: Moving Average Equipped Gated Attention, arXiv:2209.10655",
            "attention",
            "m = EMA(x), o = softmax(q kᵀ + bias) v in chunks, q, k of m; y = u ⊙ silu(W m + U (r ⊙ o)) + (1 − u) ⊙ x",
        ),
        growth="window",
    )

    def __init__(
        self,
        width: int,
        *,
        state_size: int = 16,
        key_size: int | None = None,
        value_size: int | None = None,
        chunk_size: int = 128,
        function: str = "softmax",
        positions: str = "rotary",
        **base: Any,
    ):
        super().__init__(width, **base)
        self.average = EMA(width, state_size=state_size)
        self.attention = GatedAttention(self.kind, width, key_size, value_size, chunk_size, function, positions)
        self.spec = {"state_size": state_size, **self.attention.sizes}

    def leaves(self):
        return {**self.average.leaves(), **self.attention.leaves()}

    def canonical(self, leaves):
        return {**leaves, **self.attention.canonical(leaves)}

    def mix(self, x, state, call: Call):
        m, average = self.average.mix(x, state, call)
        y, kept = self.attention(x, m, state, call)
        return y, {**average, **kept}
