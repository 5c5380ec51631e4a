"""The fast weight programmer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.gates import write_strength
from ritornello.layers.parts.heads import Heads
from ritornello.transition import Delta
from ritornello.typing import Tensor

__all__ = ["FastWeights", "dpfp"]


def dpfp(x: Tensor, nu: int) -> Tensor:
    """r = relu([x, −x]); φ(x) = [r ⊙ roll(r, 1), …, r ⊙ roll(r, ν)] / Σ: (..., K) → (..., 2·K·ν), whose sum is one."""
    r = F.relu(torch.cat([x, -x], -1))
    features = torch.cat([r * r.roll(i, -1) for i in range(1, nu + 1)], -1)
    # Where no two neighbours are positive all features are zero, and stay so.
    return features / features.sum(-1, keepdim=True).clamp(min=1e-6)


class FastWeights(Layer):
    """S ← S + β_t φ(k_t) (v_t − Sᵀφ(k_t))ᵀ, o_t = Sᵀφ(q_t) / √K: a slow network programs a fast one, the matrix S, by
    the delta rule; φ has no parameters (DPFP) and sums to one, β = σ(W_b x); y = W_o o.

    Args:
        width: of x.
        heads: of queries, keys and values; of about 64 channels where None.
        key_size: K, before φ; width / heads where None.
        value_size: width / heads where None.
        nu: ν of φ, whose size is 2 · K · ν.
        negative_eigenvalues: β in (0, 2): the transition's eigenvalue along φ(k) may become negative.

    Source: Schlag, Irie, Schmidhuber 2021, arXiv:2102.11174: the delta update, DPFP and the sum to one; the scale as in
    the authors' code.
    """

    kind = "fast_weights"
    traits = Traits(
        About(
            "Fast weight programmer",
            "Schlag et al. 2021, Linear Transformers Are Secretly Fast Weight Programmers, arXiv:2102.11174",
            "delta rule",
            "S ← S + β φ(k) (v − Sᵀφ(k))ᵀ, o = Sᵀφ(q), φ = DPFP",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        nu: int = 1,
        negative_eigenvalues: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        self.size = Heads.of(self.kind, width, heads, key_size=key_size, value_size=value_size)
        signs = 2 * self.size.key_size
        if not 1 <= nu < signs:
            raise InputError(f"`nu` of {self.kind} is {nu}; wanted 1 to {signs - 1}, below 2 · key_size.")
        self.nu, self.negative_eigenvalues = nu, negative_eigenvalues
        self.qkv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.beta_proj = nn.Linear(width, self.size.heads, bias=False)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.memory = replace(self.size, key_size=signs * nu)
        self.spec = self.memory.spec

    def leaves(self):
        return {"S": self.memory.state()}

    def mix(self, x, state, call: Call):
        q, k, v = self.size.split(self.qkv_proj(x))
        beta = write_strength(self.beta_proj(x), self.negative_eigenvalues)
        step = Delta(dpfp(k, self.nu), v, beta, scale=self.size.key_size**-0.5)
        o, S = call.solve(step, dpfp(q, self.nu), state["S"])
        return self.out_proj(o.flatten(-2)), {"S": S}
