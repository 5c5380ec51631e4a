"""RWKV-7."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.low_rank import LowRankProjection
from ritornello.layers.parts.norm import l2_normalize
from ritornello.layers.parts.place import Place
from ritornello.layers.parts.rwkv import HeadNorm, orthogonal_, ramp, shift_leaf, shifted
from ritornello.layers.parts.sizes import multiple
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.transition import LowRank
from ritornello.typing import Tensor

__all__ = ["RWKV7"]

SLOWEST = 0.6065306597126334  # e^{−1/2}: no channel forgets faster than e^{−0.607} a step


class RWKV7(Layer):
    """S ← diag(w_t) S − (a_t ⊙ κ̂_t)(κ̂_tᵀ S) + k̃_t v_tᵀ, o_t = Sᵀ r_t: a delta rule that removes along κ̂ and writes
    along another key, each channel at rates of its own; y = W_o ((GroupNorm(o) + Σ(r ⊙ r_k ⊙ k̃) v) ⊙ W₂ σ(W₁ x)).

    Every projection reads a mixture of its own, x_t + μ ⊙ (x_{t−1} − x_t). With low-rank projections ℓ:
    log w = −e^{−1/2} σ(ℓ_w), a = σ(ℓ_a), κ̂ = k ⊙ k_k of length one, k̃ = k ⊙ (1 + (a − 1) ⊙ k_a). Past the first
    layer v is mixed with the first layer's, by the share σ(ℓ_v).

    Args:
        width: of x.
        heads: of about 64 channels where None.
        value_size: width / heads where None.
        decay_rank, rate_rank, value_rank, gate_rank: of the projections for w, a, v and the gate; the authors' rules
            2.5·√width, 2.5·√width, 1.7·√width and 5·√width, rounded to multiples of 32, where None.
        norm_eps: of the group norm; 10⁻⁵ · width / heads where None.
        place: (i, n), the i-th of n such layers: the first hands its values to the others, and first values depend on
            it. A model's backbone fills it in.

    Source: Peng et al. 2025, arXiv:2503.14456, section 4; initialisation as in the authors' RWKV-LM.
    """

    kind = "rwkv7"
    own_init = True
    traits = Traits(
        About(
            "RWKV-7",
            'Peng et al. 2025, RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456',
            "delta rule",
            "S ← diag(w) S − (a ⊙ κ̂)(κ̂ᵀ S) + k̃ vᵀ, o = Sᵀ r",
        ),
        carry=True,
    )
    tags: ClassVar = {name: (NO_WEIGHT_DECAY,) for name in ("shift_mix", "r_k")}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        value_size: int | None = None,
        decay_rank: int | None = None,
        rate_rank: int | None = None,
        value_rank: int | None = None,
        gate_rank: int | None = None,
        norm_eps: float | None = None,
        place: tuple[int, int] = (0, 1),
        **base: Any,
    ):
        super().__init__(width, **base)
        self.place = Place(self.kind, place)
        if self.direction == "both" and self.place.count > 1:
            raise InputError(f"`direction` of {self.kind} is 'both', in which values cannot go from layer to layer.")
        self.size = Heads.of(self.kind, width, heads, value_size=value_size)
        heads, key_size, values = self.size.heads, self.size.key_size, self.size.values
        ranks = (2.5, decay_rank), (2.5, rate_rank), (1.7, value_rank), (5.0, gate_rank)
        found = [multiple(share * width**0.5, 32) if rank is None else rank for share, rank in ranks]
        self.decay_rank, self.rate_rank, self.value_rank, self.gate_rank = found
        at_least(1, self.kind, decay_rank=found[0], rate_rank=found[1], value_rank=found[2], gate_rank=found[3])
        self.norm_eps = 1e-5 * key_size if norm_eps is None else norm_eps
        self.shift_mix = nn.Parameter(torch.empty(6, width))  # for r, w, k, v, a and the gate
        self.r_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, values, bias=False)
        self.decay_proj = LowRankProjection(width, width, self.decay_rank, torch.tanh, bias=True)
        self.rate_proj = LowRankProjection(width, width, self.rate_rank, bias=True)
        self.value_proj = None
        if self.place.index:
            self.value_proj = LowRankProjection(width, values, self.value_rank, bias=True)
        self.gate_proj = LowRankProjection(width, values, self.gate_rank, torch.sigmoid)
        self.k_k = nn.Parameter(torch.empty(width))
        self.k_a = nn.Parameter(torch.empty(width))
        self.r_k = nn.Parameter(torch.empty(heads, key_size))
        self.norm = HeadNorm(heads, self.size.value_size, self.norm_eps)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.spec = {"heads": heads, "value_size": self.size.value_size}
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        width, place, key_size = self.width, self.place, self.size.key_size
        across, within = ramp(width), 2 * ramp(key_size).repeat(self.size.heads) - 1
        zigzag, centred = within * within.abs(), across - 0.5
        powers = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
        self.shift_mix.copy_(torch.stack([place.mix(width, p * place.falling) for p in powers]))
        self.k_k.copy_(0.71 - 0.1 * centred)
        self.k_a.fill_(1.02)
        self.r_k.fill_(-0.04)
        self.norm.weight.fill_(((place.index + 1) / place.count) ** 0.7)
        for linear, gain in ((self.r_proj, 1.0), (self.k_proj, 0.1), (self.v_proj, 1.0)):
            nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(self.out_proj.weight)
        biases = {
            "decay": 6 * across ** (1 + place.rising**0.3) - 5.5 + 2.5 * zigzag,
            "rate": 0.4 * centred + 0.3 * zigzag - 0.19,
            "value": 0.93 - 0.4 * ramp(self.size.values),
        }
        for name in ("decay", "rate", "value", "gate"):
            if (projection := getattr(self, f"{name}_proj")) is not None:
                nn.init.zeros_(projection.down.weight)
                orthogonal_(projection.up.weight, 0.1)
                if projection.up.bias is not None:
                    projection.up.bias.copy_(biases[name])

    def leaves(self):
        return {"S": self.size.state(), "shift": shift_leaf(self.width)}

    def mix(self, x, state, call: Call):
        size, wide = self.size, state["S"].dtype
        delta, last = shifted(x, state["shift"], call)
        x_r, x_w, x_k, x_v, x_a, x_g = (x + delta * mu for mu in self.shift_mix.to(x.dtype))
        keys, values = (size.heads, size.key_size), (size.heads, size.value_size)
        r, k, v = self.r_proj(x_r), self.k_proj(x_k), self._value(x_v, call)
        a = torch.sigmoid(self.rate_proj(x_a))
        removed = l2_normalize((k * self.k_k).unflatten(-1, keys), eps=1e-24)
        k = k * (1 + (a - 1) * self.k_a)
        log_decay = -SLOWEST * torch.sigmoid(self.decay_proj(x_w).to(wide))
        r, k, a, log_decay = (t.unflatten(-1, keys) for t in (r, k, a, log_decay))
        v = v.unflatten(-1, values)
        r, k, a, removed = (t.to(v.dtype) for t in (r, k, a, removed))
        o, S = call.solve(LowRank(k, v, -removed, removed * a, log_decay, scale=1.0), r, state["S"])
        present = (r * k * self.r_k.to(v.dtype)).sum(-1, keepdim=True) * v
        y = (self.norm(o) + present.flatten(-2)) * self.gate_proj(x_g)
        return self.out_proj(y), {"S": S, "shift": last}

    def _value(self, x: Tensor, call: Call) -> Tensor:
        v = self.v_proj(x)
        if self.value_proj is None:
            call.carry[self.kind] = self._in_time(v, call)
            return v
        if self.kind not in call.carry:
            raise InputError(
                f"This {self.kind} layer is number {self.place.index} of {self.place.count} and mixes in the values of "
                "the first, which did not run before it. Run it in a model, or build it with place=(0, n)."
            )
        return torch.lerp(v, self._in_time(call.carry[self.kind], call), torch.sigmoid(self.value_proj(x)))

    def _in_time(self, v: Tensor, call: Call) -> Tensor:
        """What this layer sees back to front, as the other layers see it; and the other way round."""
        return call.sequence.reverse(v) if self.direction == "backward" else v
