"""The time mix of RWKV-4."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import ramp, shift_leaf
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY
from ritornello.transition import Softmax

__all__ = ["RWKV4"]


class RWKV4(Layer):
    """y_t = W_o (σ(r_t) ⊙ wkv_t); wkv_t is the average of v_1 … v_t, channel by channel, with weights
    e^{k_s − (t − 1 − s) e^w} for s < t and e^{u + k_t} for the present; r, k, v = W (μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}).

    The state is the last x and (m, u, w): the largest exponent so far, numerator and denominator, both relative to it.

    Args:
        width: of x.
        size: channels of r, k and v; the width where None.
        place: (i, n), this is the i-th of n layers of its kind: μ and w start by it.

    Source: Peng et al. 2023, arXiv:2305.13048, eq. 11–18 and appendix D; initialisation as in the author's RWKV-LM,
    RWKV-v4: W_k, W_r and W_o start at zero, W_v orthogonal.
    """

    kind = "rwkv4"
    own_init = True
    traits = Traits(
        About(
            "RWKV-4",
            "Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048",
            "softmax",
            "wkv_t = (Σ_{s<t} e^{k_s − (t−1−s) e^w} v_s + e^{u + k_t} v_t) / (the same sum without v)",
        )
    )
    tags: ClassVar = {
        "present": (NO_WEIGHT_DECAY,),
        "decay": (NO_WEIGHT_DECAY, KEEP_FLOAT32),
        "bonus": (NO_WEIGHT_DECAY, KEEP_FLOAT32),
    }

    def __init__(self, width: int, *, size: int | None = None, place: tuple[int, int] = (0, 1), **base: Any):
        super().__init__(width, **base)
        self.size = width if size is None else size
        at_least(1, self.kind, size=self.size)
        self.place = Place(self.kind, place)
        recent = [1 - self.place.mix(width, power * self.place.falling) for power in (1, 1, 0.5)]
        recent[1] += 0.3 * self.place.rising
        self.present = nn.Parameter(torch.stack(recent))  # μ of k, v and r
        self.decay = nn.Parameter(-5 + 8 * ramp(self.size) ** (0.7 + 1.3 * self.place.rising))
        zigzag = 0.5 * ((torch.arange(self.size) + 1) % 3 - 1)
        self.bonus = nn.Parameter(math.log(0.3) + zigzag)
        self.key_proj = nn.Linear(width, self.size, bias=False)
        self.value_proj = nn.Linear(width, self.size, bias=False)
        self.receptance_proj = nn.Linear(width, self.size, bias=False)
        self.out_proj = nn.Linear(self.size, width, bias=False)
        nn.init.orthogonal_(self.value_proj.weight, gain=max(1.0, self.size / width) ** 0.5)
        for linear in (self.key_proj, self.receptance_proj, self.out_proj):
            nn.init.zeros_(linear.weight)
        self.spec = {"size": self.size}

    def leaves(self):
        one = Leaf((self.size,))
        return {"shift": shift_leaf(self.width), "m": Leaf((self.size,), fill=float("-inf")), "u": one, "w": one}

    def mix(self, x, state, call: Call):
        before, last = call.sequence.shift(x, state["shift"])
        k, v, r = torch.lerp(before.unsqueeze(2), x.unsqueeze(2), self.present.to(x.dtype)).unbind(2)
        k, v, r = self.key_proj(k), self.value_proj(v), torch.sigmoid(self.receptance_proj(r))
        wide = state["w"].dtype
        log_decay = -self.decay.to(wide).exp().expand(*x.shape[:2], -1)
        # m is a free scale: what moves it moves u and w along, so that no gradient goes through it.
        start = state["m"].detach(), state["u"], state["w"]
        average = Softmax(k.to(wide), v, log_decay, bonus=self.bonus.to(wide))
        o, (m, u, w) = call.solve(average, None, start)
        return self.out_proj(r * o.to(x.dtype)), {"shift": last, "m": m, "u": u, "w": w}

    def canonical(self, leaves):
        """The sums themselves, u·eᵐ and w·eᵐ: the state holds them up to a scale."""
        scale = leaves["m"].detach().exp()
        return {"shift": leaves["shift"], "u": leaves["u"] * scale, "w": leaves["w"] * scale}
