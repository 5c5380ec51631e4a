"""The channel mix of RWKV-4: a feed-forward that sees the step before."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.activations import relu_squared
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import shift_leaf
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY

__all__ = ["RWKV4ChannelMix"]


class RWKV4ChannelMix(Layer):
    """y_t = σ(W_r r_t) ⊙ W_v max(0, W_k k_t)², r and k = μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}. The state is the last x.

    Args:
        width: of x.
        hidden: channels between; 4 · width where None.
        place: (i, n), this is the i-th of n layers of its kind: μ starts by it.

    Source: Peng et al. 2023, arXiv:2305.13048, eq. 19–21; initialisation as in the author's RWKV-LM, RWKV-v4: W_r and
    W_v start at zero, W_k orthogonal.
    """

    kind = "rwkv4_channel_mix"
    own_init = True
    traits = Traits(
        About(
            "RWKV-4 channel mix",
            "Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048",
            "feed-forward",
            "y = σ(W_r r) ⊙ W_v relu(W_k k)², r and k mixed of x_t and x_{t−1}",
        ),
        role="feed_forward",
    )
    tags: ClassVar = {"present": (NO_WEIGHT_DECAY,)}

    def __init__(self, width: int, *, hidden: int | None = None, place: tuple[int, int] = (0, 1), **base: Any):
        super().__init__(width, **base)
        self.hidden = 4 * width if hidden is None else hidden
        at_least(1, self.kind, hidden=self.hidden)
        self.place = Place(self.kind, place)
        recent = 1 - self.place.mix(width, self.place.falling)
        self.present = nn.Parameter(torch.stack([recent, recent]))  # μ of k and r
        self.key_proj = nn.Linear(width, self.hidden, bias=False)
        self.receptance_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(self.hidden, width, bias=False)
        nn.init.orthogonal_(self.key_proj.weight, gain=max(1.0, self.hidden / width) ** 0.5)
        for linear in (self.receptance_proj, self.out_proj):
            nn.init.zeros_(linear.weight)

    def leaves(self):
        return {"shift": shift_leaf(self.width)}

    def mix(self, x, state, call: Call):
        before, last = call.sequence.shift(x, state["shift"])
        k, r = torch.lerp(before.unsqueeze(2), x.unsqueeze(2), self.present.to(x.dtype)).unbind(2)
        y = self.out_proj(relu_squared(self.key_proj(k)))
        return torch.sigmoid(self.receptance_proj(r)) * y, {"shift": last}
