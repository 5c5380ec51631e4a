"""LightNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.low_rank import LowRankProjection
from ritornello.layers.parts.norm import RMSNorm
from ritornello.sequence import Sequence
from ritornello.transition import Decay
from ritornello.typing import Tensor

__all__ = ["LightNet"]


class LightNet(Layer):
    """z_t = log Σ_{s ≤ t} e^{k_s}, S ← diag(e^{z_{t−1} − z_t}) S + e^{k_t − z_t} v_tᵀ, o_t = Sᵀ q_t / √K: each row of S
    is the average of all values so far, weighted by eᵏ, and what is new takes its share from what was there;
    q = silu(W_q x), y = W_o (RMSNorm(o) ⊙ silu(W₂ W₁ x)), the norm over all heads together.

    Args:
        width: of x.
        heads: of about 128 channels where None.
        key_size: width / heads where None.
        value_size: width / heads where None.
        gate_rank: the rows of W₁.

    Source: Qin et al. 2024, arXiv:2405.21022, sections 3.2 and 3.3, for one dimension; scale, gate and norm as in
    flash-linear-attention.
    """

    kind = "lightnet"
    traits = Traits(
        About(
            "LightNet",
            "Qin et al. 2024, You Only Scan Once: Efficient Multi-dimension Sequential Modeling with LightNet, "
            "arXiv:2405.21022",
            "linear attention",
            "z = log Σ eᵏ, S ← diag(e^{z_{t−1} − z_t}) S + e^{k − z} vᵀ, o = Sᵀ q",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        gate_rank: int = 128,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, key_size=key_size, value_size=value_size, about=128)
        self.qkv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        at_least(1, self.kind, gate_rank=gate_rank)
        self.gate_proj = LowRankProjection(width, self.size.values, gate_rank)
        self.norm = RMSNorm(self.size.values)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = self.size.only("heads", "key_size", "value_size")

    def leaves(self):
        return {"S": self.size.state(), "z": Leaf((self.size.heads, self.size.key_size), fill=float("-inf"))}

    def mix(self, x, state, call: Call):
        q, k, v = self.size.split(self.qkv_proj(x))
        wide = k.to(state["z"].dtype)
        before, z, last = running_logsumexp(wide, state["z"], call.sequence)
        # Nothing was read before the first step: S is empty, and −∞ − z must not be formed.
        log_decay = torch.where(before.isinf(), 0.0, before.masked_fill(before.isinf(), 0.0) - z)
        share = (wide - z).exp().to(v.dtype)
        o, S = call.solve(Decay(share, v, log_decay), F.silu(q), state["S"])
        return self.out_proj(self.norm(o.flatten(-2), self.gate_proj(x))), {"S": S, "z": last}

    def canonical(self, leaves):
        """The sums themselves, e^z: before anything was read z is −∞."""
        return {"S": leaves["S"], "sum": leaves["z"].exp()}


def running_logsumexp(x: Tensor, start: Tensor, sequence: Sequence) -> tuple[Tensor, Tensor, Tensor]:
    """log(e^{start} + Σ eˣ) before and after every step of x (B, T, ...), and after the last of each sequence."""
    start = start.masked_fill(start.isinf(), float("-inf"))  # of which the sum's derivative would be NaN
    rows = torch.cat([start.unsqueeze(1), sequence.pad(x)], 1)
    sums = torch.logcumsumexp(rows, 1)
    before, after = sequence.unpad((sums[:, :-1], sums[:, 1:]))
    last = sums[torch.arange(sums.shape[0], device=x.device), sequence.lengths(x.device)]
    return before, after, last
