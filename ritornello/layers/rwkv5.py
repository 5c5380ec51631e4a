"""RWKV-5."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import (
    HeadNorm,
    decay_speeds,
    draw_projections,
    present_bonus,
    shift_leaf,
    shifted,
)
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY
from ritornello.ops import swiglu
from ritornello.transition import Decay

__all__ = ["RWKV5"]


class RWKV5(Layer):
    """o_t = (S + diag(u) k_t v_tᵀ)ᵀ r_t, then S ← diag(w) S + k_t v_tᵀ with learned speeds w = exp(−exp(ω)) that do not
    depend on the input; y = W_o (GroupNorm(o) ⊙ silu(W_g x)).

    Every projection reads a mixture of its own, x_t + μ ⊙ (x_{t−1} − x_t).

    Args:
        width: of x.
        heads: of about 64 channels where None.
        key_size: width / heads where None.
        value_size: width / heads where None.
        norm_eps: of the group norm.
        place: (i, n), the i-th of n such layers: first values depend on it. A model's backbone fills it in.

    Source: Peng et al. 2024, arXiv:2404.05892, section 4 (Eagle); initialisation as in the authors' RWKV-LM, whose
    group norm divides its input by 8, which is the `norm_eps` of 64 · 10⁻⁵ here.
    """

    kind = "rwkv5"
    own_init = True
    traits = Traits(
        About(
            "RWKV-5 (Eagle)",
            "Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
            "arXiv:2404.05892",
            "linear attention",
            "o = (S + diag(u) k vᵀ)ᵀ r, S ← diag(w) S + k vᵀ, w = exp(−exp(ω))",
        )
    )
    tags: ClassVar = {
        "shift_mix": (NO_WEIGHT_DECAY,),
        "bonus": (NO_WEIGHT_DECAY,),
        "decay": (NO_WEIGHT_DECAY, KEEP_FLOAT32),
    }

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        norm_eps: float = 64e-5,
        place: tuple[int, int] = (0, 1),
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, key_size=key_size, value_size=value_size)
        keys, values = self.size.keys, self.size.values
        where = Place(self.kind, place)
        past, slowly = (where.mix(width, p * where.falling) for p in (1.0, 0.5))
        self.shift_mix = nn.Parameter(torch.stack([slowly, past, past - 0.3 * where.rising, slowly]))  # r, k, v, gate
        self.r_proj = nn.Linear(width, keys, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, values, bias=False)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.decay = nn.Parameter(decay_speeds(keys, where).view(self.size.heads, -1))
        self.bonus = nn.Parameter(present_bonus(keys, where).view(self.size.heads, -1))
        self.norm = HeadNorm(self.size.heads, self.size.value_size, norm_eps)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.spec = self.size.only("heads", "key_size", "value_size")
        draw_projections(self, where)

    def leaves(self):
        return {"S": self.size.state(), "shift": shift_leaf(self.width)}

    def mix(self, x, state, call: Call):
        delta, last = shifted(x, state["shift"], call)
        x_r, x_k, x_v, x_g = (x + delta * mu for mu in self.shift_mix.to(x.dtype))
        keys = self.size.heads, self.size.key_size
        r, k = self.r_proj(x_r).unflatten(-1, keys), self.k_proj(x_k).unflatten(-1, keys)
        v = self.v_proj(x_v).unflatten(-1, (self.size.heads, self.size.value_size))
        log_decay = -self.decay.to(state["S"].dtype).exp().expand(*x.shape[:2], -1, -1)
        o, S = call.solve(Decay(k, v, log_decay, bonus=self.bonus, scale=1.0), r, state["S"])
        return self.out_proj(swiglu(self.gate_proj(x_g), self.norm(o))), {"S": S, "shift": last}
