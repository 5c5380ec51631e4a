"""ParaGRU."""

from __future__ import annotations

from ritornello.cells.para_gru import ParaGRUCell
from ritornello.layers.base import About, Traits
from ritornello.layers.parts.para_block import ParaBlock

__all__ = ["ParaGRU"]


class ParaGRU(ParaBlock):
    """h ← (1 − z) ⊙ h + z ⊙ tanh(W_c x + a_c ⊙ h ⊙ r + b_c), z, r = σ(W x + a ⊙ h + b): a GRU whose recurrence is
    element by element. x through a short convolution and silu; y = W_o (RMSNorm(h) ⊙ silu(W_g u)) for the layer's input
    u.

    Args:
        width: of u.
        state_size: of x and h; the width where None.
        heads: blocks of W, of about 64 channels where None; 1: dense.
        clip: the largest |a| that counts, which keeps the recurrence near a contraction; None: any. State tracking
            needs more than 0.5.
        conv_width: taps of the convolution.

    Source: Danieli et al. 2025, arXiv:2510.21450, eq. 3.1a and figure 9.
    """

    kind = "para_gru"
    cell_class = ParaGRUCell
    traits = Traits(
        About(
            "ParaGRU",
            "Danieli et al. 2025, ParaRNN: Unlocking Parallel Training of Nonlinear RNNs, arXiv:2510.21450",
            "nonlinear",
            "h ← (1 − z) ⊙ h + z ⊙ tanh(W_c x + a_c ⊙ h ⊙ r), z, r = σ(W x + a ⊙ h)",
        ),
        affine=False,
    )
