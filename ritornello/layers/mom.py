"""Mixture of memories."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import GatedNorm, StepDecay, write_strength
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import l2_normalize
from ritornello.layers.parts.routing import note
from ritornello.sequence import Sequence
from ritornello.transition import Delta
from ritornello.typing import Tensor

__all__ = ["MoM"]


class MoM(Layer):
    """A router sends each step to `top_k` of `memories` gated delta rules, and all steps to a shared one; what was read
    is added up, o = Σ_{m ∈ top} p_m o_m + o_shared, p the softmax over the chosen; y = W_o (RMSNorm(o) ⊙ silu(W_g x)).

    Each memory has projections of its own for k, v, β and α, and sees its steps as if the others did not exist: also
    its convolution joins them. Each is as in `gated_delta_net`, with which it shares the sizes' defaults.

    Args:
        width: of x.
        memories: how many there are, beside the shared one.
        top_k: how many a step is sent to.
        shared: whether there is a memory of all steps.
        heads: of queries and keys.
        key_size: ¾ · width / heads where None, rounded to a multiple of 16.
        value_size: 2 · key_size where None.
        conv_width: taps of the convolution.
        negative_eigenvalues: β in (0, 2): the transitions' eigenvalues along k reach −1 (state tracking).

    The projections are computed for all memories and then chosen among, so that shapes stay static.
    ``model.loss(ids, balance=0.01)`` keeps the load of the memories even in training.

    Source: Du et al. 2025, arXiv:2502.13685, section 3, with gated DeltaNet as its memory; sizes and initialisation as
    in the authors' code, in flash-linear-attention.
    """

    kind = "mom"
    traits = Traits(
        About(
            "Mixture of memories",
            "Du et al. 2025, MoM: Linear Sequence Modeling with Mixture-of-Memories, arXiv:2502.13685",
            "delta rule",
            "S_m ← α (I − β k_m k_mᵀ) S_m + β k_m v_mᵀ for m in top(W x), o = Σ p_m S_mᵀ q",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        memories: int = 4,
        top_k: int = 2,
        shared: bool = True,
        heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        conv_width: int = 4,
        negative_eigenvalues: bool = False,
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, memories=memories)
        if not 1 <= top_k <= memories:
            raise InputError(f"`top_k` of {self.kind} is {top_k}; wanted 1 to {memories}, the number of memories.")
        self.size = Heads.with_wide_values(self.kind, width, heads, None, key_size, value_size)
        self.memories, self.top_k, self.shared = memories, top_k, shared
        self.count, self.negative_eigenvalues = memories + shared, negative_eigenvalues
        heads, keys, values = self.size.heads, self.size.keys, self.size.values
        self.parts = [keys, values, heads, heads]
        self.router = nn.Linear(width, memories, bias=False)
        self.q_proj = nn.Linear(width, keys, bias=False)
        self.memory_proj = nn.Linear(width, self.count * sum(self.parts), bias=False)  # for each: k, v, b, a
        self.conv = ShortConv(2 * keys + values, conv_width)
        self.decay = StepDecay(heads, low=1e-3)
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.norm = GatedNorm(self.size.value_size)
        self.out_proj = nn.Linear(values, width, bias=False)
        sizes = self.size.only("heads", "key_size", "value_size")
        self.spec = {**sizes, "memories": memories, "shared": shared, "conv_width": conv_width}

    def leaves(self):
        one = {"S": self.size.state(), "conv": self.conv.leaf()}
        return {name: Leaf((self.count, *leaf.shape), leaf.holds) for name, leaf in one.items()}

    def mix(self, x, state, call: Call):
        heads = self.size.heads
        chosen, weights = self._route(x, state["S"].dtype, call)
        routed, order = self._sorted(chosen, call)
        picked = self.memory_proj(x).unflatten(-1, (self.count, -1)).gather(2, _spread(chosen, sum(self.parts)))
        q = self.q_proj(x).unsqueeze(2).expand(-1, -1, chosen.shape[2], -1)
        qkvba = torch.cat([q, picked], -1).flatten(0, 2)[order].unsqueeze(0)
        qkv, b, a = qkvba.split([self.size.keys * 2 + self.size.values, heads, heads], -1)
        qkv, window = self.conv(qkv, state["conv"].flatten(0, 1), routed)
        q, k, v = self.size.split(qkv)
        beta = write_strength(b, self.negative_eigenvalues)
        step = Delta(l2_normalize(k), v, beta, self.decay(a))
        o, S = routed.solve(step, l2_normalize(q), state["S"].flatten(0, 1))
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0], device=x.device)
        o = torch.einsum("bte,btehv->bthv", weights.to(o.dtype), o[0, back].unflatten(0, chosen.shape))
        new = {name: leaf.unflatten(0, (-1, self.count)) for name, leaf in (("S", S), ("conv", window))}
        return self.out_proj(self.norm(o, self.gate_proj(x))), new

    def _route(self, x: Tensor, wide: torch.dtype, call: Call) -> tuple[Tensor, Tensor]:
        """Which memories each step goes to, and with what weight it reads them: (B, T, top_k + shared) each."""
        p = self.router(x).to(wide).softmax(-1)
        weights, chosen = p.topk(self.top_k, -1)
        note(call, self.kind, p, chosen)
        weights = weights / weights.sum(-1, keepdim=True)
        if self.shared:
            weights = torch.cat([weights, torch.ones_like(weights[..., :1])], -1)
            chosen = torch.cat([chosen, torch.full_like(chosen[..., :1], self.memories)], -1)
        return chosen, weights

    def _sorted(self, chosen: Tensor, call: Call) -> tuple[Call, Tensor]:
        """The call for the steps sorted by sequence and memory, each such pair a packed sequence; and their order."""
        sequence = call.sequence
        if sequence.cu_seqlens is None:
            owners = torch.arange(sequence.batch, device=chosen.device).view(-1, 1, 1)
        else:
            owners = sequence.owners().unsqueeze(-1)
        total = sequence.batch * self.count
        pair = (owners * self.count + chosen).flatten().clamp(max=total)  # steps beyond the last sequence go last
        order = torch.argsort(pair, stable=True)
        ends = torch.searchsorted(pair[order], torch.arange(total + 1, device=pair.device))
        longest = sequence.length if sequence.longest is None else sequence.longest
        return call.over(Sequence(total, pair.shape[0], ends, longest)), order


def _spread(index: Tensor, size: int) -> Tensor:
    """(B, T, E) → (B, T, E, size), for `gather`."""
    return index.unsqueeze(-1).expand(-1, -1, -1, size)
