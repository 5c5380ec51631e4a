"""The block-diagonal linear recurrence as a layer."""

from __future__ import annotations

from typing import Any, ClassVar

from ritornello.cells.block_lrnn import BlockLRNNCell
from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY

__all__ = ["BlockLRNN"]


class BlockLRNN(Layer):
    """h ← A(x_t) h + v(x_t), y = h, A of n × n blocks that depend on the input: state tracking by small matrices of any
    sign, each no larger than a p-norm allows.

    At the first step of a sequence a learned state stands in h's place: the state counts the steps, so that it knows.

    Args:
        width: of x and y.
        block: n, a divisor of the width.
        p: of the norm that bounds the columns of a block.

    Source: Fan et al. 2023, arXiv:2309.07412, section 4.
    """

    kind = "block_lrnn"
    traits = Traits(
        About(
            "Block-diagonal LRNN",
            "Fan et al. 2023, Advancing Regular Language Reasoning in Linear Recurrent Neural Networks, "
            "arXiv:2309.07412",
            "block-diagonal",
            "h ← A(x) h + v(x), A of n × n blocks, the p-norms of their columns at most 1",
        )
    )
    tags: ClassVar = {"cell.start": (NO_WEIGHT_DECAY,)}

    def __init__(self, width: int, *, block: int = 4, p: float = 1.2, **base: Any):
        super().__init__(width, **base)
        if p < 1:
            raise InputError(f"`p` of {self.kind} is {p}; wanted at least 1: a norm.")
        self.cell = BlockLRNNCell(width, block, p)
        self.spec = {"block": block}

    def leaves(self):
        block = self.spec["block"]
        return {"h": Leaf((block, self.width // block)), "position": Leaf((), "index")}

    def mix(self, x, state, call: Call):
        starts = call.sequence.places(state["position"]) == 0
        y, h = call.run(self.cell, (x, starts), state["h"])
        return y, {"h": h, "position": call.sequence.after(state["position"])}
