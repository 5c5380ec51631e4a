"""The plain feed-forward."""

from __future__ import annotations

from typing import Any

from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.activations import activation_of

__all__ = ["MLP"]


class MLP(Layer):
    """y = W_o act(W_i x).

    Args:
        width: of x.
        hidden: channels between; expand · width where None.
        expand: their ratio to the width.
        activation: ``"gelu"``, ``"gelu_tanh"``, ``"relu"``, ``"relu_squared"``, ``"silu"`` or ``"sigmoid"``.
        bias: whether the projections have one.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 2; GELU: Hendrycks and Gimpel 2016, arXiv:1606.08415; relu²: So
    et al. 2021, arXiv:2109.08668.
    """

    kind = "mlp"
    traits = Traits(
        About(
            "MLP",
            "Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762",
            "feed-forward",
            "y = W_o gelu(W_i x)",
        ),
        role="feed_forward",
    )

    def __init__(
        self,
        width: int,
        *,
        hidden: int | None = None,
        expand: float = 4,
        activation: str = "gelu",
        bias: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.hidden = int(expand * width) if hidden is None else hidden
        at_least(1, self.kind, hidden=self.hidden)
        self.activation = activation_of(self.kind, activation)
        self.in_proj = nn.Linear(width, self.hidden, bias=bias)
        self.out_proj = nn.Linear(self.hidden, width, bias=bias)

    def leaves(self):
        return {}

    def mix(self, x, state, call: Call):
        return self.out_proj(self.activation(self.in_proj(x))), {}
