"""Gated linear attention."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Traits, at_least, divide
from ritornello.layers.parts.gates import GatedNorm
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.inits import xavier_blocks_
from ritornello.layers.parts.sizes import heads_for
from ritornello.transition import Decay

__all__ = ["GLA"]


class GLA(Layer):
    """S ← diag(α_t) S + k_t v_tᵀ, o_t = Sᵀ q_t / √K, α_t = σ(W₂ W₁ x_t + b)^{1/16}; y = W_o (RMSNorm(o) ⊙ silu(W_g x)).

    Args:
        width: of x.
        heads: of queries and keys; four where None, each of at least 64 values.
        value_heads: a multiple of `heads`, each with decays of its own; as many where None.
        key_size: ½ · width / heads where None.
        value_size: width / value heads where None.
        gate_rank: the rows of W₁.
        gate_temperature: the 16 in α's exponent.
        negative_eigenvalues: the decay is 2 α − 1, in (−1, 1) (state tracking).
        norm_eps: of the norm of o.

    Source: Yang et al. 2023, arXiv:2312.06635, section 4.4; without the bias of W_g, with RMSNorm and initialised as in
    the authors' code; negative eigenvalues: Grazzi et al. 2024, arXiv:2411.12537.
    """

    kind = "gla"
    traits = Traits(
        About(
            "Gated linear attention",
            "Yang et al. 2023, Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv:2312.06635",
            "linear attention",
            "S ← diag(α) S + k vᵀ, o = Sᵀ q, α = σ(W₂ W₁ x + b)^{1/16}",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        value_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        gate_rank: int = 16,
        gate_temperature: float = 16.0,
        negative_eigenvalues: bool = False,
        norm_eps: float = 1e-5,
        **base: Any,
    ):
        super().__init__(width, **base)
        heads = heads_for(width, max(64, width // 4)) if heads is None else heads
        if key_size is None:
            key_size = max(1, divide(self.kind, "width", width, "heads", heads) // 2)
        at_least(1, self.kind, gate_rank=gate_rank)
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size)
        self.gate_temperature, self.negative_eigenvalues = gate_temperature, negative_eigenvalues
        keys, values, decays = self.size.keys, self.size.values, self.size.value_heads * key_size
        self.qkv_proj = nn.Linear(width, 2 * keys + values, bias=False)
        down, up = nn.Linear(width, gate_rank, bias=False), nn.Linear(gate_rank, decays)
        self.decay_proj = nn.Sequential(down, up)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.norm = GatedNorm(self.size.value_size, norm_eps)
        self.out_proj = nn.Linear(values, width, bias=False)
        xavier_blocks_(self.qkv_proj, keys, keys, values)
        for linear in (down, up, self.gate_proj, self.out_proj):
            xavier_blocks_(linear)
        self.spec = self.size.spec

    def leaves(self):
        return {"S": self.size.state()}

    def mix(self, x, state, call: Call):
        q, k, v = self.size.split(self.qkv_proj(x))
        gate = self.decay_proj(x).unflatten(-1, (self.size.value_heads, self.size.key_size))
        log_decay = F.logsigmoid(gate.to(state["S"].dtype)) / self.gate_temperature
        decay = None
        if self.negative_eigenvalues:
            log_decay, decay = None, 2 * log_decay.exp() - 1
        o, S = call.solve(Decay(k, v, log_decay, decay), q, state["S"])
        return self.out_proj(self.norm(o, self.gate_proj(x))), {"S": S}
