"""RWKV-6."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.low_rank import LowRankProjection
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import (
    HeadNorm,
    decay_speeds,
    draw_projections,
    present_bonus,
    shift_leaf,
    shifted,
)
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.ops import swiglu
from ritornello.transition import Decay
from ritornello.typing import Tensor

__all__ = ["RWKV6"]


class DynamicShift(nn.Module):
    """x_t + (μ_i + λ_i(x)) ⊙ (x_{t−1} − x_t) for i = 1 … n: mixtures with the past whose shares depend on the input.

    λ_i = W_i tanh(V_i (x_t + μ ⊙ (x_{t−1} − x_t))), each of low rank.
    """

    tags: ClassVar = {"each": (NO_WEIGHT_DECAY,)}

    def __init__(self, width: int, count: int, rank: int):
        super().__init__()
        self.all = nn.Parameter(torch.zeros(width))
        self.each = nn.Parameter(torch.zeros(count, width))
        self.down = nn.Linear(width, count * rank, bias=False)
        self.up = nn.Linear(count * rank, width, bias=False)

    def forward(self, x: Tensor, delta: Tensor) -> list[Tensor]:
        count = self.each.shape[0]
        hidden = torch.tanh(self.down(x + delta * self.all.to(x.dtype))).unflatten(-1, (count, -1))
        shares = torch.einsum("btnr,dnr->btnd", hidden, self.up.weight.to(hidden.dtype).unflatten(1, (count, -1)))
        return [x + delta * share for share in (shares + self.each).to(x.dtype).unbind(2)]


class RWKV6(Layer):
    """o_t = (S + diag(u) k_t v_tᵀ)ᵀ r_t, then S ← diag(w_t) S + k_t v_tᵀ; w = exp(−exp(ℓ(x))) with ℓ of low rank,
    y = W_o (GroupNorm(o) ⊙ silu(W_g x)).

    Every projection reads a mixture of its own with the token before, whose shares depend on the input.

    Args:
        width: of x.
        heads: of about 64 channels where None.
        key_size: width / heads where None.
        value_size: width / heads where None.
        mix_rank: of the mixtures' shares.
        decay_rank: of ℓ.
        norm_eps: of the group norm.
        place: (i, n), the i-th of n such layers: first values depend on it. A model's backbone fills it in.

    Source: Peng et al. 2024, arXiv:2404.05892, section 4 (Finch); initialisation as in the authors' RWKV-LM.
    """

    kind = "rwkv6"
    own_init = True
    traits = Traits(
        About(
            "RWKV-6 (Finch)",
            "Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
            "arXiv:2404.05892",
            "linear attention",
            "o = (S + diag(u) k vᵀ)ᵀ r, S ← diag(w) S + k vᵀ, w = exp(−exp(ℓ(x)))",
        )
    )
    tags: ClassVar = {"bonus": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        mix_rank: int = 32,
        decay_rank: int = 64,
        norm_eps: float = 64e-5,
        place: tuple[int, int] = (0, 1),
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, key_size=key_size, value_size=value_size)
        at_least(1, self.kind, mix_rank=mix_rank, decay_rank=decay_rank)
        keys, values = self.size.keys, self.size.values
        self.shift = DynamicShift(width, 5, mix_rank)  # for r, w, k, v and the gate
        self.r_proj = nn.Linear(width, keys, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, values, bias=False)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.decay_proj = LowRankProjection(width, keys, decay_rank, torch.tanh, bias=True)
        self.bonus = nn.Parameter(torch.empty(self.size.heads, self.size.key_size))
        self.norm = HeadNorm(self.size.heads, self.size.value_size, norm_eps)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.spec = self.size.only("heads", "key_size", "value_size")
        self._draw(Place(self.kind, place))

    @torch.no_grad()
    def _draw(self, place: Place) -> None:
        past = place.mix(self.width, place.falling)
        slowly = place.mix(self.width, 0.5 * place.falling)
        self.shift.all.copy_(past)
        self.shift.each.copy_(torch.stack([slowly, past, past, past - 0.3 * place.rising, slowly]))
        for low_rank in (self.shift, self.decay_proj):
            nn.init.zeros_(low_rank.down.weight)
            nn.init.uniform_(low_rank.up.weight, -0.01, 0.01)
        assert self.decay_proj.up.bias is not None
        self.decay_proj.up.bias.copy_(decay_speeds(self.size.keys, place))
        self.bonus.copy_(present_bonus(self.size.keys, place).view_as(self.bonus))
        draw_projections(self, place)

    def leaves(self):
        return {"S": self.size.state(), "shift": shift_leaf(self.width)}

    def mix(self, x, state, call: Call):
        delta, last = shifted(x, state["shift"], call)
        x_r, x_w, x_k, x_v, x_g = self.shift(x, delta)
        keys = self.size.heads, self.size.key_size
        r, k = self.r_proj(x_r).unflatten(-1, keys), self.k_proj(x_k).unflatten(-1, keys)
        v = self.v_proj(x_v).unflatten(-1, (self.size.heads, self.size.value_size))
        log_decay = -self.decay_proj(x_w).to(state["S"].dtype).exp().unflatten(-1, keys)
        o, S = call.solve(Decay(k, v, log_decay, bonus=self.bonus, scale=1.0), r, state["S"])
        return self.out_proj(swiglu(self.gate_proj(x_g), self.norm(o))), {"S": S, "shift": last}
