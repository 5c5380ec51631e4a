"""The gated feed-forward."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.activations import activation_of
from ritornello.layers.parts.sizes import multiple
from ritornello.ops import swiglu

__all__ = ["GatedMLP"]


class GatedMLP(Layer):
    """y = W_o (act(W_g x) ⊙ W_u x).

    Args:
        width: of x.
        hidden: channels between; expand · width where None, rounded to a multiple of 32.
        expand: 8/3 makes as many parameters as a plain feed-forward of expansion 4.
        activation: ``"silu"`` (SwiGLU), ``"gelu"`` (GeGLU), ``"gelu_tanh"`` (Griffin, Gemma), ``"relu"``,
            ``"relu_squared"`` or ``"sigmoid"``.
        bias: whether the projections have one.

    Source: Shazeer 2020, arXiv:2002.05202, eq. 6.
    """

    kind = "gated_mlp"
    traits = Traits(
        About(
            "Gated MLP",
            "Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202",
            "feed-forward",
            "y = W_o (silu(W_g x) ⊙ W_u x)",
        ),
        role="feed_forward",
    )

    def __init__(
        self,
        width: int,
        *,
        hidden: int | None = None,
        expand: float = 8 / 3,
        activation: str = "silu",
        bias: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.hidden = multiple(expand * width, 32) if hidden is None else hidden
        at_least(1, self.kind, hidden=self.hidden)
        self.activation = activation_of(self.kind, activation)
        self.gate_up_proj = nn.Linear(width, 2 * self.hidden, bias=bias)
        self.out_proj = nn.Linear(self.hidden, width, bias=bias)

    def leaves(self):
        return {}

    def mix(self, x, state, call: Call):
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        gated = swiglu(gate, up) if self.activation is F.silu else self.activation(gate) * up
        return self.out_proj(gated), {}
