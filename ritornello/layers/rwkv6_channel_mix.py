"""The feed-forward of RWKV-5 and RWKV-6."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.activations import relu_squared
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import shift_leaf, shifted
from ritornello.layers.parts.sizes import multiple
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY

__all__ = ["RWKV6ChannelMix"]


class RWKV6ChannelMix(Layer):
    """y = σ(W_r x') ⊙ W_o relu(W_k x'')², with x' and x'' mixtures x_t + μ ⊙ (x_{t−1} − x_t).

    Args:
        width: of x.
        hidden: channels between; 3.5 · width where None, rounded to a multiple of 32.
        place: (i, n), the i-th of n such layers: first values depend on it. A model's backbone fills it in.

    Source: Peng et al. 2024, arXiv:2404.05892, section 4; initialisation as in the authors' RWKV-LM.
    """

    kind = "rwkv6_channel_mix"
    own_init = True
    traits = Traits(
        About(
            "RWKV-5/6 channel mix",
            "Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
            "arXiv:2404.05892",
            "feed-forward",
            "y = σ(W_r x') ⊙ W_o relu(W_k x'')²; x', x'' = x_t + μ ⊙ (x_{t−1} − x_t)",
        ),
        role="feed_forward",
    )
    tags: ClassVar = {"shift_mix": (NO_WEIGHT_DECAY,)}

    def __init__(self, width: int, *, hidden: int | None = None, place: tuple[int, int] = (0, 1), **base: Any):
        super().__init__(width, **base)
        self.hidden = multiple(3.5 * width, 32) if hidden is None else hidden
        at_least(1, self.kind, hidden=self.hidden)
        where = Place(self.kind, place)
        self.shift_mix = nn.Parameter(where.mix(width, where.falling).repeat(2, 1))  # for k and r
        self.k_proj = nn.Linear(width, self.hidden, bias=False)
        self.r_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(self.hidden, width, bias=False)
        nn.init.orthogonal_(self.k_proj.weight)
        nn.init.zeros_(self.r_proj.weight)
        nn.init.zeros_(self.out_proj.weight)

    def leaves(self):
        return {"shift": shift_leaf(self.width)}

    def mix(self, x, state, call: Call):
        delta, last = shifted(x, state["shift"], call)
        x_k, x_r = (x + delta * mu for mu in self.shift_mix.to(x.dtype))
        return torch.sigmoid(self.r_proj(x_r)) * self.out_proj(relu_squared(self.k_proj(x_k))), {"shift": last}
