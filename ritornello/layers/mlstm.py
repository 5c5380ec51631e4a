"""The mLSTM, as in xLSTM 7B."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Leaf, Traits, divide
from ritornello.layers.parts.activations import soft_cap
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import norm_of_heads
from ritornello.layers.parts.sizes import heads_for
from ritornello.transition import MLSTM as Memory

__all__ = ["MLSTM"]


class MLSTM(Layer):
    """C ← σ(f_t) C + e^{i_t} k_t v_tᵀ, n ← σ(f_t) n + e^{i_t} k_t, o_t = Cᵀq / max(|nᵀq|, 1), q = q_t / √K; i, f =
    cap · tanh((W x + b) / cap), one each per head; y = W_o (LayerNorm(o) ⊙ σ(W_g x)), each head normalised for itself.

    The state is (C e^{−m}, n e^{−m}, m), m the largest exponent so far.

    Args:
        width: of x.
        heads: of about 512 values where None.
        key_size: ½ · width / heads where None.
        value_size: width / heads where None.
        gate_soft_cap: the bound of i and f before their activation; none where None.
        norm_eps: of the norm.
        eps: added to the normaliser.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 19–27; block, caps and initialisation of Beck et al. 2025, xLSTM 7B,
    arXiv:2503.13427, and its authors' code: gates start with no weights and the biases b_i = −10, b_f from 3 to 6; q, k
    and v are drawn with variance 2 / (5 · width). W_o, whose size depends on the depth, is the model's to initialise.
    """

    kind = "mlstm"
    traits = Traits(
        About(
            "mLSTM (xLSTM 7B)",
            "Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517",
            "linear attention",
            "C ← σ(f) C + eⁱ k vᵀ, n ← σ(f) n + eⁱ k, o = Cᵀq / max(|nᵀq|, 1)",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        gate_soft_cap: float | None = 15.0,
        norm_eps: float = 1e-6,
        eps: float = 1e-6,
        **base: Any,
    ):
        super().__init__(width, **base)
        heads = heads_for(width, 512) if heads is None else heads
        if key_size is None:
            key_size = max(1, divide(self.kind, "width", width, "heads", heads) // 2)
        self.size = Heads.of(self.kind, width, heads, key_size=key_size, value_size=value_size)
        self.gate_soft_cap, self.norm_eps, self.eps = gate_soft_cap, norm_eps, eps
        self.qkv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.if_proj = nn.Linear(width, 2 * heads)
        self.gate_proj = nn.Linear(width, self.size.values, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(self.size.values))
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        nn.init.normal_(self.qkv_proj.weight, std=math.sqrt(2 / (5 * width)))
        nn.init.zeros_(self.gate_proj.weight)
        nn.init.zeros_(self.if_proj.weight)
        with torch.no_grad():
            self.if_proj.bias.copy_(torch.cat([torch.full((heads,), -10.0), torch.linspace(3.0, 6.0, heads)]))
        for linear in (self.qkv_proj, self.gate_proj, self.if_proj):
            linear.own_init = True  # type: ignore[assignment]
        self.spec = self.size.only("heads", "key_size", "value_size")

    def leaves(self):
        heads, keys = self.size.heads, self.size.key_size
        return {"C": self.size.state(), "n": Leaf((heads, keys)), "m": Leaf((heads,))}

    def mix(self, x, state, call: Call):
        q, k, v = self.size.split(self.qkv_proj(x))
        # m is a free scale: what moves it moves C and n along, so that no gradient goes through it.
        start = state["C"], state["n"], state["m"].detach()
        i, f = soft_cap(self.if_proj(x).to(start[0].dtype), self.gate_soft_cap).chunk(2, -1)
        o, (C, n, m) = call.solve(Memory(k, v, i, f, eps=self.eps), q, start)
        o = norm_of_heads(o, self.norm_weight, None, self.norm_eps)
        return self.out_proj(o * torch.sigmoid(self.gate_proj(x))), {"C": C, "n": n, "m": m}

    def canonical(self, leaves):
        """The memory itself, C·eᵐ and n·eᵐ: the state holds it up to a scale."""
        scale = leaves["m"].detach().exp()
        return {"C": leaves["C"] * scale[..., None, None], "n": leaves["n"] * scale.unsqueeze(-1)}
