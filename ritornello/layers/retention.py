"""Retention, the layer of RetNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, divide
from ritornello.layers.parts.gates import GatedNorm
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.inits import xavier_blocks_
from ritornello.layers.parts.rotary import rotate
from ritornello.layers.parts.sizes import heads_for
from ritornello.transition import Decay

__all__ = ["Retention"]


class Retention(Layer):
    """S ← γ S + k_t v_tᵀ, o_t = Sᵀ q_t / √K, q and k turned by their position, γ = 1 − 2^{−5−h} fixed for head h;
    y = W_o (GroupNorm(o) ⊙ silu(W_g x)), each head normalised for itself.

    The paper's xPos is the rotation and the decay, as γ is a scalar. Its scores are also divided by sums that the norm
    takes out again: they are left out here.

    Args:
        width: of x.
        heads: of queries and keys.
        value_heads: a multiple of `heads`, each with a γ of its own; as many where None.
        key_size: width / heads where None. Even.
        value_size: 2 · key_size where None.
        rope_base: of the rotary frequencies.
        norm: "group" subtracts the mean of a head and has no weights; "rms" does not, and has them.
        norm_eps: of it.

    Source: Sun et al. 2023, arXiv:2307.08621, eq. 5–8; sizes, initialisation and ε as in the authors' torchscale; "rms"
    as in flash-linear-attention's checkpoints.
    """

    kind = "retention"
    traits = Traits(
        About(
            "Retention (RetNet)",
            "Sun et al. 2023, Retentive Network: A Successor to Transformer, arXiv:2307.08621",
            "linear attention",
            "S ← γ S + k vᵀ, o = Sᵀ q",
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
        rope_base: float = 10_000.0,
        norm: str = "group",
        norm_eps: float = 1e-6,
        **base: Any,
    ):
        super().__init__(width, **base)
        if norm not in ("group", "rms"):
            raise InputError(f"`norm` of {self.kind} is {norm!r}. {nearest(norm, ('group', 'rms'))}")
        heads = heads_for(width) if heads is None else heads
        key_size = divide(self.kind, "width", width, "heads", heads) if key_size is None else key_size
        value_size = 2 * key_size if value_size is None else value_size
        if key_size % 2:
            raise InputError(f"`key_size` of {self.kind} is {key_size}; rotary positions turn pairs: take an even one.")
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size)
        self.rope_base, self.centred = rope_base, norm == "group"
        keys, values = self.size.keys, self.size.values
        self.qkv_proj = nn.Linear(width, 2 * keys + values, bias=False)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.norm = GatedNorm(self.size.value_size, eps=norm_eps, centred=self.centred)
        self.out_proj = nn.Linear(values, width, bias=False)
        xavier_blocks_(self.qkv_proj, keys, keys, values)
        xavier_blocks_(self.gate_proj)
        xavier_blocks_(self.out_proj, gain=1.0)
        self.spec = self.size.spec

    def leaves(self):
        return {"S": self.size.state(), "position": Leaf((), "index")}

    def mix(self, x, state, call: Call):
        sequence, position = call.sequence, state["position"]
        places = sequence.places(position)
        q, k, v = self.size.split(self.qkv_proj(x))
        q, k = rotate(q, places, self.rope_base), rotate(k, places, self.rope_base)
        head = torch.arange(self.size.value_heads, dtype=torch.float64, device=x.device)
        # float64: the logarithm of a number as near to one as 1 − 2^−20.
        log_decay = torch.log1p(-torch.exp2(-5 - head)).to(state["S"].dtype)
        o, S = call.solve(Decay(k, v, log_decay.expand(*x.shape[:2], -1)), q, state["S"])
        return self.out_proj(self.norm(o, self.gate_proj(x))), {"S": S, "position": sequence.after(position)}
