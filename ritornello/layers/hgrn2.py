"""HGRN2."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits, divide
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.sizes import heads_for
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
        lower_bound: γ, 0 ≤ γ < 1: no gate forgets faster. In the paper it grows with depth, from 0 at the first layer.

    Source: Qin et al. 2024, arXiv:2404.07904, eq. 3–5; activations and norm as in the authors' language model.
    """

    kind = "hgrn2"
    traits = Traits(
        About(
            "HGRN2",
            "Qin et al. 2024, HGRN2: Gated Linear RNNs with State Expansion, arXiv:2404.07904",
            "linear attention",
            "S ← diag(f) S + (1 − f) vᵀ, o = Sᵀ q",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        lower_bound: float = 0.0,
        **base: Any,
    ):
        super().__init__(width, **base)
        if not 0 <= lower_bound < 1:
            raise InputError(f"`lower_bound` of {self.kind} is {lower_bound}; wanted at least 0 and below 1.")
        heads = heads_for(width, 128) if heads is None else heads
        key_size = key_size or divide(self.kind, "width", width, "heads", heads)
        value_size = value_size or divide(self.kind, "width", width, "heads", heads)
        self.size = Heads.of(self.kind, heads, heads, key_size, value_size)
        self.lower_bound = lower_bound
        self.qfv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.norm = RMSNorm(self.size.values)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = {"heads": heads, "key_size": key_size, "value_size": value_size}

    def leaves(self):
        return {"S": self.size.state()}

    def mix(self, x, state, call: Call):
        q, gate, v = self.size.split(self.qfv_proj(x))
        gate, low = gate.to(state["S"].dtype), self.lower_bound
        k = (1 - low) * torch.sigmoid(-gate)  # 1 − f, without its cancellation
        log_decay = F.logsigmoid(gate) if low == 0 else torch.log(low + (1 - low) * torch.sigmoid(gate))
        o, S = call.solve(Decay(k.to(v.dtype), v, log_decay, scale=1.0), F.silu(q), state["S"])
        return self.out_proj(self.norm(o.flatten(-2))), {"S": S}
