"""The travelling-wave RNN as a layer."""

from __future__ import annotations

from typing import Any

from ritornello.cells.wave_rnn import WaveRNNCell
from ritornello.layers.base import About, Traits, divide
from ritornello.layers.parts.cells import CellLayer
from ritornello.layers.parts.sizes import heads_for

__all__ = ["WaveRNN"]


class WaveRNN(CellLayer):
    """h ← φ(w ⋆ h + V x + b): h lies on rings, and the short convolution w, a shift at the start, lets activity travel
    around them: a wave holds the recent past; φ = relu or tanh.

    Args:
        width: of x and h.
        channels: rings, of about 16 places where None.
        conv_width: taps of w, odd.
        activation: φ, ``"relu"`` or ``"tanh"``.

    Source: Keller et al. 2023, arXiv:2309.08045.
    """

    kind = "wave_rnn"
    traits = Traits(
        About(
            "Travelling-wave RNN",
            "Keller et al. 2023, Traveling Waves Encode the Recent Past, arXiv:2309.08045",
            "nonlinear",
            "h ← relu(w ⋆ h + V x + b), w ⋆ a circular convolution over each ring",
        ),
        affine=False,
    )

    def __init__(
        self, width: int, *, channels: int | None = None, conv_width: int = 3, activation: str = "relu", **base: Any
    ):
        super().__init__(width, **base)
        channels = heads_for(width, 16) if channels is None else channels
        ring = divide(self.kind, "width", width, "channels", channels)
        self.cell = WaveRNNCell(width, channels, ring, conv_width, activation)
        self.spec = {"width": width, "channels": channels}
