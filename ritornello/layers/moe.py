"""A mixture of gated feed-forwards."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits, at_least, divide
from ritornello.layers.gated_mlp import GatedMLP
from ritornello.layers.parts.numbers import numbers
from ritornello.layers.parts.routing import in_best_groups, note
from ritornello.layers.parts.tags import KEEP_FLOAT32
from ritornello.typing import accumulation_dtype

__all__ = ["MoE"]

ROUTINGS = ("softmax", "sigmoid")


class MoE(Layer):
    """y = scale · Σ_{e ∈ top k of p} p_e E_e(x) + g · E_shared(x), p = softmax(W_r x), E(x) = W_o (act(W_g x) ⊙ W_u x).

    Each step goes to its k experts, and no step is dropped, however uneven the load: which also means that a row's
    output does not depend on the other rows. ``model.loss(ids, balance=0.01)`` keeps the load even in training. The
    router works in float32 or wider: near-ties in bfloat16 would go to other experts.

    Args:
        width: of x.
        experts: how many there are.
        top_k: how many of them each step goes to.
        hidden: channels within an expert; expand · width where None, rounded to a multiple of 32.
        expand: see `hidden`.
        shared: channels within an expert that every step goes to; no such expert where None.
        shared_gate: g = σ(w · x); g = 1 without it.
        routing: ``"softmax"`` over the experts, or ``"sigmoid"`` of each.
        normalize: divide the p of the k experts by their sum + `normalize_eps`.
        normalize_eps: see `normalize`.
        choice_bias: the k experts are those of the largest p + b; what they are given is p without b. No gradient
            reaches b: it starts at zero, and a checkpoint's is kept.
        groups: the experts stand in so many groups of equal size, and all k come from the `top_groups` groups whose
            two largest p + b have the largest sum.
        top_groups: see `groups`; all of them where None.
        scale: of what the k experts make.
        activation: see GatedMLP.

    Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 1 (softmax before the choice, as in Fedus et al. 2021,
    arXiv:2101.03961, eq. 2); the shared expert: Dai et al. 2024, arXiv:2401.06066, eq. 9; sigmoid: DeepSeek-AI 2024,
    arXiv:2412.19437, eq. 15; b: Wang et al. 2024, arXiv:2408.15664; groups and scale as in transformers' kimi_linear.
    """

    kind = "moe"
    traits = Traits(
        About(
            "Mixture of experts",
            "Shazeer et al. 2017, Outrageously Large Neural Networks, arXiv:1701.06538",
            "feed-forward",
            "y = Σ_{e ∈ top k of p} p_e E_e(x), p = softmax(W_r x)",
        ),
        affine=False,  # how many steps an expert gets is a number of the data: no graph holds it
        role="feed_forward",
    )
    tags: ClassVar = {"choice_bias": (KEEP_FLOAT32,)}

    def __init__(
        self,
        width: int,
        *,
        experts: int = 8,
        top_k: int = 2,
        hidden: int | None = None,
        expand: float = 8 / 3,
        shared: int | None = None,
        shared_gate: bool = False,
        routing: str = "softmax",
        normalize: bool = True,
        normalize_eps: float = 0.0,
        choice_bias: bool = False,
        groups: int = 1,
        top_groups: int | None = None,
        scale: float = 1.0,
        activation: str = "silu",
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, experts=experts, shared=1 if shared is None else shared)
        if not 1 <= top_k <= experts:
            raise InputError(f"`top_k` of {self.kind} is {top_k}; wanted 1 … {experts}, the number of `experts`.")
        if routing not in ROUTINGS:
            raise InputError(f"`routing` of {self.kind} is {routing!r}; it takes 'softmax' or 'sigmoid'.")
        if shared_gate and shared is None:
            raise InputError(f"`shared_gate` of {self.kind} gates the shared expert: give its channels as `shared`.")
        self.top_k, self.routing, self.normalize, self.normalize_eps = top_k, routing, normalize, normalize_eps
        self.groups, self.top_groups, self.scale = groups, groups if top_groups is None else top_groups, scale
        size = divide(self.kind, "experts", experts, "groups", groups)
        if not -(-top_k // size) <= self.top_groups <= groups:
            raise InputError(
                f"`top_groups` of {self.kind} is {self.top_groups}; wanted {-(-top_k // size)} … {groups}: there are "
                f"{groups} groups of {size} experts, and those that are chosen must hold the {top_k} of `top_k`."
            )
        self.choice_bias: Any
        self.register_buffer("choice_bias", torch.zeros(experts) if choice_bias else None)
        self.router = nn.Linear(width, experts, bias=False)
        self.experts: Any = nn.ModuleList(
            GatedMLP(width, hidden=hidden, expand=expand, activation=activation) for _ in range(experts)
        )
        self.hidden = self.experts[0].hidden
        self.shared_expert = None if shared is None else GatedMLP(width, hidden=shared, activation=activation)
        self.shared_gate = nn.Linear(width, 1, bias=False) if shared_gate else None

    def leaves(self):
        return {}

    def mix(self, x, state, call: Call):
        flat = x.flatten(0, -2)
        p = self.route(flat)
        weights, chosen = self.choose(p)
        note(call, self.kind, p, chosen)
        weights = weights.to(x.dtype)
        order = chosen.flatten().argsort(stable=True)
        loads = numbers(self.kind, chosen.flatten().bincount(minlength=len(self.experts)))
        shares = flat[order // self.top_k].split(loads)
        done = [
            expert.mix(share, {}, call)[0] for expert, share in zip(self.experts, shares, strict=True) if len(share)
        ]
        outputs = torch.cat(done) if done else flat
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        y = (outputs[back].unflatten(0, chosen.shape) * weights.unsqueeze(-1)).sum(1)
        if self.shared_expert is not None:
            always = self.shared_expert.mix(flat, {}, call)[0]
            y = y + (always if self.shared_gate is None else torch.sigmoid(self.shared_gate(flat)) * always)
        return y.view(x.shape), {}

    def route(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, width) → what each step's router gives the experts, (n, experts)."""
        wide = accumulation_dtype(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(wide), self.router.weight.to(wide))
        return logits.softmax(-1) if self.routing == "softmax" else logits.sigmoid()

    def choose(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """p (n, experts) → the weights and the numbers of each step's experts, (n, top_k)."""
        score = p.detach() if self.choice_bias is None else p.detach() + self.choice_bias.to(p.dtype)
        if self.top_groups < self.groups:
            score = in_best_groups(score, self.groups, self.top_groups)
        chosen = score.topk(self.top_k, -1).indices
        weights = p.gather(-1, chosen)
        if self.normalize:
            weights = weights / (weights.sum(-1, keepdim=True) + self.normalize_eps)
        return weights * self.scale, chosen
