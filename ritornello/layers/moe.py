"""A mixture of gated feed-forwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.gated_mlp import GatedMLP
from ritornello.layers.parts.routing import note
from ritornello.typing import accumulation_dtype

__all__ = ["MoE"]

ROUTINGS = ("softmax", "sigmoid")


class MoE(Layer):
    """y = Σ_{e ∈ top k of p} p_e E_e(x) + g · E_shared(x), p = softmax(W_r x), E(x) = W_o (act(W_g x) ⊙ W_u x).

    Each step goes to its k experts, and no step is dropped, however uneven the load: which also means that a row's
    output does not depend on the other rows. ``model.loss(ids, balance=0.01)`` keeps the load even in training.

    Args:
        width: of x.
        experts: how many there are.
        top_k: how many of them each step goes to.
        hidden: channels within an expert; expand · width where None, rounded to a multiple of 32.
        expand: see `hidden`.
        shared: channels within an expert that every step goes to; no such expert where None.
        shared_gate: g = σ(w · x); g = 1 without it.
        routing: ``"softmax"`` over the experts, or ``"sigmoid"`` of each.
        normalize: divide the p of the k experts by their sum.
        activation: see GatedMLP.

    Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 1 (softmax before the choice, as in Fedus et al. 2021,
    arXiv:2101.03961, eq. 2); the shared expert: Dai et al. 2024, arXiv:2401.06066, eq. 9; sigmoid: DeepSeek-AI 2024,
    arXiv:2412.19437, eq. 15.
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
        self.top_k, self.routing, self.normalize = top_k, routing, normalize
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
        loads = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
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
        logits = self.router(x).to(accumulation_dtype(x.dtype))
        return logits.softmax(-1) if self.routing == "softmax" else logits.sigmoid()

    def choose(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """p (n, experts) → the weights and the numbers of each step's experts, (n, top_k)."""
        weights, chosen = p.topk(self.top_k, -1)
        return weights / weights.sum(-1, keepdim=True) if self.normalize else weights, chosen
