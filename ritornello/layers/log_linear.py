"""Log-linear attention: a matrix state for each power of two of the past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.catalogue import build
from ritornello.layers.parts.numbers import numbers
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.transition import Decay, Delta
from ritornello.typing import Tensor, Tree

__all__ = ["LogLinear"]


class LogLinear(Layer):
    """o_t = Σ_ℓ λ_t^{(ℓ)} S_t^{(ℓ)ᵀ} q_t in place of o_t = S_tᵀ q_t, for a layer with a matrix state S: the past is cut
    into buckets of 1, 2, 4, … steps, the recent ones small, each with a state of its own; λ = softplus(c ⊙ W x).

    Bucket 0 is the present. Where bit ℓ − 1 of t is set, bucket ℓ holds the 2^{ℓ−1} steps that end where t's lower bits
    begin: the first half of the block of 2^ℓ steps in which t stands. So its state is written in that half, read in
    the other, and emptied at the block's start; all buckets are heads of one call of the inner layer's op.

    Args:
        width: of x.
        inner: a layer whose state is a matrix with a decay or a delta rule: "gla", "gated_delta_net", "mamba2", "kda" …
        options: of the inner layer, by name.
        levels: how many buckets; 2^{levels − 1} steps can be read.

    Source: Guo et al. 2025, arXiv:2506.04761, section 3; λ as in the authors' code.
    """

    kind = "log_linear"
    traits = Traits(
        About(
            "Log-linear attention",
            "Guo et al. 2025, Log-Linear Attention, arXiv:2506.04761",
            "linear attention",
            "o = Σ_ℓ λ_ℓ S_ℓᵀ q, S_ℓ the state of the bucket of 2^{ℓ−1} steps",
        ),
        growth="log",
    )
    tags: ClassVar = {"level_scale": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        inner: str = "mamba2",
        options: Mapping[str, Any] | None = None,
        levels: int = 12,
        **base: Any,
    ):
        super().__init__(width, **base)
        if not 2 <= levels <= 48:
            raise InputError(f"`levels` of {self.kind} is {levels}; wanted 2 to 48, for 2^{{levels − 1}} steps.")
        self.inner = build(inner, width, **(options or {}))
        state = self.inner.leaves().get("S")
        if state is None or len(state.shape) != 3 or not self.inner.traits.affine:
            raise InputError(
                f"`inner` of {self.kind} is {inner!r}, which has no matrix state with a linear recurrence. Take 'gla' "
                "or 'mamba2'."
            )
        self.levels, self.heads = levels, int(state.shape[0] or 0)
        self.level_proj = nn.Linear(width, self.heads * levels, bias=False)
        self.level_scale = nn.Parameter(torch.ones(self.heads, levels))
        self.spec = {**self.inner.spec, "inner": inner, "levels": levels}

    def leaves(self):
        inner = dict(self.inner.leaves())
        inner["S"] = replace(inner["S"], shape=(self.heads * (self.levels - 1), *inner["S"].shape[1:]))
        return {**inner, "steps": Leaf((), "index")}

    def canonical(self, leaves):
        return {**self.inner.canonical(leaves), "steps": leaves["steps"]}

    def mix(self, x, state, call: Call):
        sequence, before = call.sequence, state["steps"]
        after = sequence.after(before)
        limit = 2 ** (self.levels - 1)
        if not torch.compiler.is_compiling() and after.numel() and numbers(self.kind, after.max()) > limit:
            raise InputError(
                f"{self.kind} with levels={self.levels} reads {limit} steps at most, and was given {int(after.max())}. "
                "Build it with more levels."
            )
        wide = state["S"].dtype
        weights = F.softplus(self.level_scale.to(wide) * self.level_proj(x).to(wide).unflatten(-1, (self.heads, -1)))
        buckets: Any = _BucketCall(call, weights, sequence.places(before))
        y, new = self.inner.mix(x, {n: leaf for n, leaf in state.items() if n != "steps"}, buckets)
        return y, {**new, "steps": after}


@dataclass(frozen=True, eq=False)
class _BucketCall:
    """A call whose matrix states are kept in buckets.

    Args:
        call: how to run.
        weights: λ (B, T, Hv, levels).
        steps: (B, T) the index of each step in its sequence.
    """

    call: Call
    weights: Tensor
    steps: Tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.call, name)

    def over(self, sequence: Any) -> Any:
        raise _refused("that repeats its steps or sorts them")

    def solve(self, transition: Any, query: Tree, state: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(transition, Decay | Delta) or getattr(transition, "bonus", None) is not None:
            raise _refused(f"with {type(transition).__name__} steps")
        heads, buckets = transition.v.shape[2], self.weights.shape[-1] - 1
        level = torch.arange(buckets, device=self.steps.device)
        second = (self.steps.unsqueeze(-1) >> level) & 1 == 1  # (B, T, buckets): the half in which a bucket is read
        kept = self.steps.unsqueeze(-1) % (2 << level) != 0
        o, last = self.call.solve(_in_buckets(transition, ~second, kept), query, state)
        own, *rest = self.weights.to(o.dtype).split([1, buckets], -1)
        read = torch.einsum("bthl,bthlv->bthv", rest[0] * second.unsqueeze(2), o.unflatten(2, (heads, buckets)))
        return read + own * _present(transition, query), last


def _refused(what: str) -> InputError:
    return InputError(
        f"log_linear was built around a layer {what}; it takes decays and delta rules without a bonus: 'gla', "
        "'mamba2', 'gated_delta_net' and their kind."
    )


def _in_buckets(t: Any, written: Tensor, kept: Tensor) -> Any:
    """The steps of every head in every bucket, heads × buckets value heads: values only where a bucket is written, and
    a decay of zero where it is emptied."""
    buckets = written.shape[-1]
    if t.log_decay is not None:
        decay = t.log_decay.exp()
    else:
        decay = t.v.new_ones(t.v.shape[:3], dtype=torch.promote_types(t.v.dtype, torch.float32))
        decay = decay if t.decay is None else t.decay
    mask = kept.unsqueeze(2) if decay.dim() == 3 else kept.unsqueeze(2).unsqueeze(-1)
    changed: dict[str, Any] = {
        "v": (t.v.unsqueeze(3) * written.unsqueeze(2).unsqueeze(-1)).flatten(2, 3),
        "decay": (decay.unsqueeze(3) * mask).flatten(2, 3),
        "log_decay": None,
    }
    if isinstance(t, Delta):
        changed["beta"] = t.beta.repeat_interleave(buckets, 2)
    return replace(t, **changed)


def _present(t: Any, query: Any) -> Tensor:
    """What a step reads of itself: scale · (q · k) v, with β for a delta rule."""
    scale = t.k.shape[-1] ** -0.5 if t.scale is None else t.scale
    weight = scale * (t.heads(query) * t.heads(t.k)).sum(-1)
    if isinstance(t, Delta):
        weight = weight * t.beta.to(weight.dtype)
    return weight.unsqueeze(-1) * t.v
