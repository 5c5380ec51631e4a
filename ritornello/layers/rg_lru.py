"""Griffin's recurrent block."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from torch.nn import functional as F

from ritornello.cells.rg_lru import RGLRUCell
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.sizes import heads_for, multiple
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY

__all__ = ["RGLRU"]


class RGLRU(Layer):
    """h ← a_t ⊙ h + √(1 − a_t²) ⊙ i_t ⊙ x_t, log a_t = −8 softplus(Λ) ⊙ r_t, r and i = σ(W x_t + b), x through a short
    convolution; output W_o (h ⊙ gelu(z)) with x, z = W_in u for the layer's input u, all with biases.

    At the first step of a sequence h = i ⊙ x: the state counts the steps, so that it knows. The GeLU is the tanh
    approximation.

    Args:
        width: of u.
        state_size: of x and h; 4/3 · width where None, rounded to a multiple of 16.
        heads: blocks of the gates' matrices, of about 256 channels where None; 1: dense.
        conv_width: taps of the convolution.

    Source: De et al. 2024, arXiv:2402.19427, sections 2.3 and 2.4; initialisation as in the authors' recurrentgemma.
    """

    kind = "rg_lru"
    traits = Traits(
        About(
            "RG-LRU (Griffin)",
            "De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention, arXiv:2402.19427",
            "diagonal",
            "h ← a ⊙ h + √(1 − a²) ⊙ i ⊙ x, log a = −8 softplus(Λ) ⊙ r; r, i = σ(W x + b)",
        )
    )
    tags: ClassVar = {"cell.Lambda": (NO_WEIGHT_DECAY, KEEP_FLOAT32)}

    def __init__(
        self,
        width: int,
        *,
        state_size: int | None = None,
        heads: int | None = None,
        conv_width: int = 4,
        **base: Any,
    ):
        super().__init__(width, **base)
        size = multiple(4 / 3 * width, 16) if state_size is None else state_size
        at_least(1, self.kind, state_size=size)
        heads = heads_for(size, 256) if heads is None else heads
        divide(self.kind, "state_size", size, "heads", heads)
        self.state_size = size
        self.in_proj = nn.Linear(width, 2 * size)
        self.conv = ShortConv(size, conv_width, bias=True, activation=None)
        self.cell = RGLRUCell(size, heads)
        self.out_proj = nn.Linear(size, width)
        for part, variance in {"in_proj": 1 / width, "conv": 0.01 / conv_width, "out_proj": 1 / size}.items():
            nn.init.normal_(self.get_parameter(f"{part}.weight"), std=variance**0.5)
            nn.init.zeros_(self.get_parameter(f"{part}.bias"))
        self.spec = {"state_size": size, "conv_width": conv_width}

    def leaves(self):
        return {"h": Leaf((self.state_size,)), "conv": self.conv.leaf(), "position": Leaf((), "index")}

    def mix(self, x, state, call: Call):
        starts = call.sequence.places(state["position"]) == 0
        x, z = self.in_proj(x).chunk(2, -1)
        x, window = self.conv(x, state["conv"], call)
        y, h = call.run(self.cell, (x, starts), state["h"])
        y = self.out_proj(y * F.gelu(z, approximate="tanh"))
        return y, {"h": h, "conv": window, "position": call.sequence.after(state["position"])}
