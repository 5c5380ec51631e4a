"""HGRN2."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits, divide
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.rwkv import Place
from ritornello.layers.parts.sizes import heads_for
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.transition import Decay
from ritornello.typing import Tensor, accumulation_dtype

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
        learned_bound: γ is learned instead, for each channel: 0 at the first layer, then γ ← γ + (1 − γ) σ(bound) from
            layer to layer; i / n at the start.
        norm_eps: of the norm of o.
        place: (i, n), the i-th of n such layers. A model's backbone fills it in.

    Source: Qin et al. 2024, arXiv:2404.07904, eq. 3–5; activations and norm as in the authors' language model. Their
    learned bounds are running sums of a softmax over the layers: the same numbers, by fewer parameters.
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
    tags: ClassVar = {"bound": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        lower_bound: float = 0.0,
        learned_bound: bool = False,
        norm_eps: float = 1e-5,
        place: tuple[int, int] = (0, 1),
        **base: Any,
    ):
        super().__init__(width, **base)
        if not 0 <= lower_bound < 1:
            raise InputError(f"`lower_bound` of {self.kind} is {lower_bound}; wanted at least 0 and below 1.")
        heads = heads_for(width, 128) if heads is None else heads
        key_size = key_size or divide(self.kind, "width", width, "heads", heads)
        value_size = value_size or divide(self.kind, "width", width, "heads", heads)
        self.size = Heads.of(self.kind, heads, heads, key_size, value_size)
        self.lower_bound, self.learned_bound, self.place = lower_bound, learned_bound, Place(self.kind, place)
        self.qfv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.norm = RMSNorm(self.size.values, norm_eps)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.bound = None
        if learned_bound and self.place.index:
            left = self.place.count - self.place.index
            self.bound = nn.Parameter(torch.full((self.size.keys,), -math.log(left)))
        self.spec = {"heads": heads, "key_size": key_size, "value_size": value_size}

    def leaves(self):
        return {"S": self.size.state()}

    def mix(self, x, state, call: Call):
        q, gate, v = self.size.split(self.qfv_proj(x))
        gate, low = gate.to(state["S"].dtype), self._low(call)
        k = (1 - low) * torch.sigmoid(-gate)  # 1 − f, without its cancellation
        bounded = isinstance(low, torch.Tensor) or low > 0
        log_decay = torch.log(low + (1 - low) * torch.sigmoid(gate)) if bounded else F.logsigmoid(gate)
        o, S = call.solve(Decay(k.to(v.dtype), v, log_decay, scale=1.0), F.silu(q), state["S"])
        return self.out_proj(self.norm(o.flatten(-2))), {"S": S}

    def _low(self, call: Call) -> Tensor | float:
        """γ: a number, or (H, K) where it is learned past the first layer."""
        if not self.learned_bound:
            return self.lower_bound
        low: Tensor | float = 0.0
        if self.bound is not None:
            if self.kind not in call.carry:
                raise InputError(
                    f"This {self.kind} layer is number {self.place.index} of {self.place.count} and goes on from the "
                    "bound of the one before, which did not run. Run it in a model, or build it with place=(0, n)."
                )
            before = call.carry[self.kind]
            wide = accumulation_dtype(self.bound.dtype)
            low = before + (1 - before) * torch.sigmoid(self.bound.to(wide)).view(self.size.heads, -1)
        call.carry[self.kind] = low
        return low
