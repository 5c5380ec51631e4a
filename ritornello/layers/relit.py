"""The recurrent linear transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.sizes import heads_for
from ritornello.transition import Decay
from ritornello.typing import Tensor

__all__ = ["ReLiT"]


class ReLiT(Layer):
    """C ← ((1 − γ_t)(1 − β_t)ᵀ) ⊙ C + (γ_t ⊙ k_t)(β_t ⊙ v_t)ᵀ, s ← (1 − γ_t) ⊙ s + γ_t ⊙ k_t,
    o_t = Cᵀ q_t / (s · q_t + ε): linear attention with a gate for every row and every column of its memory.

    Keys, queries and γ are outer products, of K · η features: k = relu(W_k x) ⊗ relu(P_1 x), q = relu(W_q x) ⊗
    relu(P_2 x), γ = σ(W_γ x) ⊗ σ(P_3 x); β = σ(W_β x); y = W_o o; all with biases. Every column of C decays at a speed
    of its own, so that time and memory are those of as many heads as there are values.

    Args:
        width: of x.
        heads: of about 32 channels where None.
        key_size: K, before the outer product; width / heads where None.
        value_size: width / heads where None.
        expand: η.
        eps: ε.

    Source: Pramanik et al. 2023, arXiv:2310.15719, section 3 (ReLiT; GaLiTe in its second version), without the
    approximation of C by sums of cosines; initialisation and ε as in the authors' code.
    """

    kind = "relit"
    own_init = True
    traits = Traits(
        About(
            "Recurrent linear transformer",
            "Pramanik et al. 2023, Recurrent Linear Transformers, arXiv:2310.15719",
            "linear attention",
            "C ← ((1 − γ)(1 − β)ᵀ) ⊙ C + (γ ⊙ k)(β ⊙ v)ᵀ, s ← (1 − γ) ⊙ s + γ ⊙ k, o = Cᵀ q / (s · q + ε)",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        expand: int = 4,
        eps: float = 1e-5,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.heads = heads_for(width, 32) if heads is None else heads
        self.key_size = divide(self.kind, "width", width, "heads", self.heads) if key_size is None else key_size
        self.value_size = divide(self.kind, "width", width, "heads", self.heads) if value_size is None else value_size
        at_least(1, self.kind, key_size=self.key_size, value_size=self.value_size, expand=expand)
        self.expand, self.eps = expand, eps
        keys, values = self.heads * self.key_size, self.heads * self.value_size
        self.parts = [keys, keys, keys, values, values]  # k, q, γ, v, β
        self.in_proj = nn.Linear(width, sum(self.parts))
        self.expand_proj = nn.Linear(width, 3 * self.heads * expand)
        self.out_proj = nn.Linear(values, width)
        for linear in (self.in_proj, self.expand_proj, self.out_proj):
            nn.init.orthogonal_(linear.weight, 2**0.5)
            nn.init.zeros_(linear.bias)
        self.spec = {"heads": self.heads, "key_size": self.key_size, "value_size": self.value_size, "expand": expand}

    def leaves(self):
        # A head for every column of C, and one for s: each decays by itself.
        return {"S": Leaf((self.heads * (self.value_size + 1), self.key_size * self.expand, 1))}

    def mix(self, x, state, call: Call):
        k, q, gamma, v, beta = self.in_proj(x).split(self.parts, -1)
        more_k, more_q, more_gamma = self.expand_proj(x).unflatten(-1, (3, self.heads, self.expand)).unbind(2)
        wide = state["S"].dtype
        k, q = self._outer(F.relu(k), F.relu(more_k)), self._outer(F.relu(q), F.relu(more_q))
        gamma = self._outer(torch.sigmoid(gamma.to(wide)), torch.sigmoid(more_gamma.to(wide)))
        v, beta = (t.unflatten(-1, (self.heads, self.value_size)) for t in (v, beta.to(wide)))
        kept = F.pad(torch.sigmoid(-beta), (0, 1), value=1.0)  # s decays by γ alone
        decay = kept.unsqueeze(-1) * (1 - gamma).unsqueeze(-2)
        written = F.pad(torch.sigmoid(beta) * v, (0, 1), value=1.0).to(v.dtype)
        step = Decay((gamma * k).to(v.dtype), written.flatten(2).unsqueeze(-1), decay=decay.flatten(2, 3), scale=1.0)
        o, S = call.solve(step, q, state["S"])
        o = o.squeeze(-1).unflatten(-1, (self.heads, -1))
        return self.out_proj((o[..., :-1] / (o[..., -1:] + self.eps)).flatten(-2)), {"S": S}

    def _outer(self, x: Tensor, by: Tensor) -> Tensor:
        """(B, T, H·K) and (B, T, H, η) → (B, T, H, K·η)."""
        return (x.unflatten(-1, (self.heads, -1)).unsqueeze(-1) * by.unsqueeze(-2)).flatten(-2)
