"""The feed-forward of RWKV-7."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.activations import relu_squared
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import shift_leaf, shifted
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY

__all__ = ["RWKV7ChannelMix"]


class RWKV7ChannelMix(Layer):
    """y_t = W_o relu(W_k (x_t + μ ⊙ (x_{t−1} − x_t)))².

    Args:
        width: of x.
        hidden: channels between; 4 · width where None.
        place: (i, n), the i-th of n such layers: first values depend on it. A model's backbone fills it in.

    Source: Peng et al. 2025, arXiv:2503.14456, section 4; initialisation as in the authors' RWKV-LM.
    """

    kind = "rwkv7_channel_mix"
    own_init = True
    traits = Traits(
        About(
            "RWKV-7 channel mix",
            'Peng et al. 2025, RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456',
            "feed-forward",
            "y = W_o relu(W_k (x_t + μ ⊙ (x_{t−1} − x_t)))²",
        ),
        role="feed_forward",
    )
    tags: ClassVar = {"shift_mix": (NO_WEIGHT_DECAY,)}

    def __init__(self, width: int, *, hidden: int | None = None, place: tuple[int, int] = (0, 1), **base: Any):
        super().__init__(width, **base)
        self.hidden = 4 * width if hidden is None else hidden
        at_least(1, self.kind, hidden=self.hidden)
        where = Place(self.kind, place)
        self.shift_mix = nn.Parameter(where.mix(width, where.falling**4))
        self.k_proj = nn.Linear(width, self.hidden, bias=False)
        self.out_proj = nn.Linear(self.hidden, width, bias=False)
        nn.init.orthogonal_(self.k_proj.weight)
        nn.init.zeros_(self.out_proj.weight)

    def leaves(self):
        return {"shift": shift_leaf(self.width)}

    def mix(self, x, state, call: Call):
        delta, last = shifted(x, state["shift"], call)
        hidden = relu_squared(self.k_proj(x + delta * self.shift_mix.to(x.dtype)))
        return self.out_proj(hidden), {"shift": last}
