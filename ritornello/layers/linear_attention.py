"""Linear attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError, nearest
from ritornello.layers.base import About, Call, Layer, Traits
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import RMSNorm
from ritornello.transition import Decay
from ritornello.typing import Tensor

__all__ = ["LinearAttention"]


def elu_plus_one(x: Tensor) -> Tensor:
    """x + 1 for x > 0 and eˣ below: never rounded to zero, as elu(x) + 1 would be."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": elu_plus_one,
    "relu": F.relu,
    "softmax": lambda x: x.softmax(-1).to(x.dtype),
    "identity": lambda x: x,
}


class LinearAttention(Layer):
    """S ← S + φ(k_t) v_tᵀ, z ← z + φ(k_t), o_t = Sᵀφ(q_t) / (φ(q_t)·z + ε), φ(x) = elu(x) + 1; y = W_o o.

    z stands in the state as one more column of S, written by a value that is always 1.

    Args:
        width: of x.
        heads: of queries and keys.
        value_heads: a multiple of `heads`; as many where None.
        key_size: width / heads where None.
        value_size: width / value heads where None.
        feature_map: φ: "elu", "relu", "softmax" (over the channels of a head) or "identity".
        normalize: divide by φ(q)·z. False: o = RMSNorm(Sᵀφ(q) / √K) in its place, which any φ allows.
        eps: ε.

    Source: Katharopoulos et al. 2020, arXiv:2006.16236, eq. 7 and 16–20; ε as in the authors' code; the norm in place
    of the normaliser: Qin et al. 2022, arXiv:2210.10340.
    """

    kind = "linear_attention"
    traits = Traits(
        About(
            "Linear attention",
            "Katharopoulos et al. 2020, Transformers are RNNs, arXiv:2006.16236",
            "linear attention",
            "S ← S + φ(k) vᵀ, z ← z + φ(k), o = Sᵀφ(q) / φ(q)·z",
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
        feature_map: str = "elu",
        normalize: bool = True,
        eps: float = 1e-6,
        **base: Any,
    ):
        super().__init__(width, **base)
        if feature_map not in FEATURE_MAPS:
            raise InputError(f"`feature_map` of {self.kind} is {feature_map!r}. {nearest(feature_map, FEATURE_MAPS)}")
        if normalize and feature_map == "identity":
            raise InputError(
                f"`feature_map` of {self.kind} is 'identity', whose φ(q)·z may be zero or negative. Choose another, "
                "or normalize=False."
            )
        self.size = Heads.of(self.kind, width, heads, value_heads, key_size, value_size)
        self.feature_map, self.normalize, self.eps = feature_map, normalize, eps
        self.qkv_proj = nn.Linear(width, 2 * self.size.keys + self.size.values, bias=False)
        self.norm = nn.Identity() if normalize else RMSNorm(self.size.value_size)
        self.out_proj = nn.Linear(self.size.values, width, bias=False)
        self.spec = {**self.size.spec, "normalize": normalize}

    def leaves(self):
        return {"S": self.size.state(columns=1 if self.normalize else 0)}

    def mix(self, x, state, call: Call):
        q, k, v = self.size.split(self.qkv_proj(x))
        q, k = FEATURE_MAPS[self.feature_map](q), FEATURE_MAPS[self.feature_map](k)
        if self.normalize:
            v = F.pad(v, (0, 1), value=1.0)
        o, S = call.solve(Decay(k, v, scale=1.0 if self.normalize else None), q, state["S"])
        if self.normalize:
            o = o[..., :-1] / (o[..., -1:] + self.eps)
        return self.out_proj(self.norm(o).flatten(-2)), {"S": S}
