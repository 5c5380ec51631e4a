"""ParaLSTM."""

from __future__ import annotations

from ritornello.cells.para_lstm import ParaLSTMCell
from ritornello.layers.base import About, Traits
from ritornello.layers.parts.para_block import ParaBlock

__all__ = ["ParaLSTM"]


class ParaLSTM(ParaBlock):
    """c ← f ⊙ c + (1 − f) ⊙ tanh(W_g x + a_g ⊙ h + b_g), h = o ⊙ tanh c, f and o = σ(W x + a ⊙ h + p ⊙ c + b), f with
    the old c: an LSTM whose recurrence is element by element. x through a short convolution and silu; y = W_o
    (RMSNorm(h) ⊙ silu(W_z u)) for the layer's input u.

    Args:
        width: of u.
        state_size: of x, h and c; the width where None.
        heads: blocks of W, of about 64 channels where None; 1: dense.
        clip: the largest |a| and |p| that count, which keeps the recurrence near a contraction; None: any. State
            tracking needs more than 0.5.
        conv_width: taps of the convolution.

    Source: Danieli et al. 2025, arXiv:2510.21450, eq. 3.1b and figure 9.
    """

    kind = "para_lstm"
    cell_class = ParaLSTMCell
    names = ("h", "c")
    traits = Traits(
        About(
            "ParaLSTM",
            "Danieli et al. 2025, ParaRNN: Unlocking Parallel Training of Nonlinear RNNs, arXiv:2510.21450",
            "nonlinear",
            "c ← f ⊙ c + (1 − f) ⊙ tanh(W_g x + a_g ⊙ h), h = o ⊙ tanh c; f, o = σ(W x + a ⊙ h + p ⊙ c)",
        ),
        affine=False,
    )
