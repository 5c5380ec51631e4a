"""The block of ParaRNN around its cells."""

from __future__ import annotations

from typing import Any

from torch import nn

from ritornello.layers.base import Call, Layer, at_least, divide
from ritornello.layers.parts.cells import cell_leaves, run_cell
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.sizes import heads_for

__all__ = ["ParaBlock"]


class ParaBlock(Layer):
    """y = W_o (RMSNorm(cell(x)) ⊙ silu(z)), x, z = W_in u for the layer's input u, x through a short convolution and
    silu. A final class sets `cell_class`, and `names` for a state of several tensors."""

    cell_class: Any
    names: tuple[str, ...] = ("h",)

    def __init__(
        self,
        width: int,
        *,
        state_size: int | None = None,
        heads: int | None = None,
        clip: float | None = 0.5,
        conv_width: int = 4,
        **base: Any,
    ):
        super().__init__(width, **base)
        size = width if state_size is None else state_size
        at_least(1, self.kind, state_size=size)
        heads = heads_for(size) if heads is None else heads
        divide(self.kind, "state_size", size, "heads", heads)
        self.in_proj = nn.Linear(width, 2 * size, bias=False)
        self.conv = ShortConv(size, conv_width, bias=True)
        self.cell = self.cell_class(size, size, heads, clip)
        self.norm = RMSNorm(size)
        self.out_proj = nn.Linear(size, width, bias=False)
        self.spec = {"state_size": size, "conv_width": conv_width}

    def leaves(self):
        return {**cell_leaves(self.cell, self.names), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        x, z = self.in_proj(x).chunk(2, -1)
        x, window = self.conv(x, state["conv"], call)
        y, new = run_cell(call, self.cell, self.names, x, state)
        return self.out_proj(self.norm(y, z)), {**new, "conv": window}
