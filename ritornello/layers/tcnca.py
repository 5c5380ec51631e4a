"""TCNCA."""

from __future__ import annotations

from typing import Any

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.dilated import TemporalConvolutions
from ritornello.layers.parts.gated_attention import GatedAttention

__all__ = ["TCNCA"]


class TCNCA(Layer):
    """MEGA with dilated convolutions in place of its moving averages: m ← m + silu(b_i + Σ_j w_ij ⊙ m_{t − j fⁱ}) for
    i = 0, 1, …, from m = x on; o_t = Σ_s softmax_s(q_t · k_s / √K + bias_{t−s}) v_s over the steps s ≤ t of t's chunk,
    q, k = κ ⊙ silu(W_z m) + μ, v = silu(W_v x); y = u ⊙ silu(W_h m + U (silu(W_r m) ⊙ o)) + (1 − u) ⊙ x, u = σ(W_u m).

    No step sees further back than the convolutions reach from the start of its chunk, 1 + (conv_width − 1) Σ fⁱ steps,
    and the state holds a window of inputs for each of them.

    Args:
        width: of x and y.
        conv_width: taps of each convolution.
        dilation: f, the dilation of each convolution over that of the one before.
        conv_depth: how many convolutions.
        key_size: K, of the queries and keys; a quarter of the width where None.
        value_size: of v; twice the width where None.
        chunk_size: how many steps attend to each other.
        function: ``"softmax"`` or ``"laplace"``, as of ``"mega"``.
        positions: ``"rotary"`` or ``"simple"``, as of ``"mega"``.

    Source: Terzić et al. 2023, arXiv:2312.05605; attention and gates as in MEGA, arXiv:2209.10655, the convolutions
    between residual connections as in Bai et al. 2018, arXiv:1803.01271.
    """

    kind = "tcnca"
    traits = Traits(
        About(
            "TCNCA",
            "Terzić et al. 2023, TCNCA: Temporal Convolution Network with Chunked Attention for Scalable Sequence "
            "Processing, arXiv:2312.05605",
            "attention",
            "m = dilated convolutions of x; q, k of m, v of x, attention in chunks and gates as in MEGA",
        ),
        growth="window",
        affine=False,
    )

    def __init__(
        self,
        width: int,
        *,
        conv_width: int = 5,
        dilation: int = 4,
        conv_depth: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        chunk_size: int = 128,
        function: str = "softmax",
        positions: str = "rotary",
        **base: Any,
    ):
        super().__init__(width, **base)
        self.convolutions = TemporalConvolutions(self.kind, width, conv_width, dilation, conv_depth)
        self.attention = GatedAttention(self.kind, width, key_size, value_size, chunk_size, function, positions)
        self.spec = {"conv_width": conv_width, "dilation": dilation, "conv_depth": conv_depth, **self.attention.sizes}

    def leaves(self):
        return {**self.convolutions.leaves(), **self.attention.leaves()}

    def canonical(self, leaves):
        return {**leaves, **self.attention.canonical(leaves)}

    def mix(self, x, state, call: Call):
        call.demand_fused(self.kind)
        m, windows = self.convolutions(x, state, call)
        y, kept = self.attention(x, m, state, call)
        return y, {**windows, **kept}
