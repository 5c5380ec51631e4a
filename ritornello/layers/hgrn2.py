"""HGRN2."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.bounds import LowerBound
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import RMSNorm
from ritornello.transition import Decay

__all__ = ["HGRN2"]


class HGRN2(Layer):
    """S ← diag(f_t) S + (1 − f_t) v_tᵀ, o_t = Sᵀ q_t, f_t = γ + (1 − γ) σ(W_f x_t), q = silu(W_q x), v = W_v x;
    y = W_o RMSNorm(o), over all heads together.

    Args:
        width: of x.
        heads: of about 128 channels where None.
        key_size: how far a head's state is expanded; width / heads where None.
        value_size: width / heads where None.
        lower_bound: γ, 0 ≤ γ < 1: no gate forgets faster. Where None it is learned, channel by channel, from layer to
            layer (see `LowerBound`): 0 at the first, so that a layer alone has none.
        norm_eps: of the norm of o.
        place: (i, n), the i-th of n such layers. A model's backbone fills it in.

    Source: Qin et al. 2024, arXiv:2404.07904, eq. 3–5; activations and norm as in the authors' language model.
    """

    kind = "hgrn2"
    traits = Traits(
        About(
            "HGRN2",
            "Qin et al. 2024, HGRN2: Gated Linear RNNs with State Expansion, arXiv:2404.07904",
            "linear attention",
            "S ← diag(f) S + (1 − f) vᵀ, o = Sᵀ q",
        ),
        carry=True,
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        lower_bound: float | None = None,
        norm_eps: float = 1e-5,
        place: tuple[int, int] = (0, 1),
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, key_size=key_size, value_size=value_size, about=128)
        self.bound = LowerBound(self.kind, self.size.keys, lower_bound, place)
        self.qfv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.norm = RMSNorm(self.size.values, norm_eps)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = self.size.only("heads", "key_size", "value_size")

    def leaves(self):
        return {"S": self.size.state()}

    def mix(self, x, state, call: Call):
        q, gate, v = self.size.split(self.qfv_proj(x))
        gate, low = gate.to(state["S"].dtype), self.bound(call)
        if isinstance(low, torch.Tensor):
            low = low.to(gate.dtype).view(self.size.heads, -1)
        k = (1 - low) * torch.sigmoid(-gate)  # 1 − f, without its cancellation
        unbounded = not isinstance(low, torch.Tensor) and low == 0
        log_decay = F.logsigmoid(gate) if unbounded else torch.log(low + (1 - low) * torch.sigmoid(gate))
        o, S = call.solve(Decay(k.to(v.dtype), v, log_decay, scale=1.0), F.silu(q), state["S"])
        return self.out_proj(self.norm(o.flatten(-2))), {"S": S}
