"""The mixture of experts step by step, arXiv:1701.06538, eq. 1, with the shared expert of arXiv:2401.06066, eq. 9, and
a choice by groups and with biases as of DeepSeek-V3, arXiv:2412.19437, section 2.1.2."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import rows, sigmoid, silu, weights

VARIANTS = {
    "top 2 of 6": {"experts": 6},  # of 8, two are so near in one step that bfloat16 takes the other
    "shared, gated, not normalized": {
        "experts": 4, "top_k": 3, "hidden": 24, "shared": 40, "shared_gate": True, "normalize": False,
    },
    "sigmoid, one expert": {"experts": 4, "top_k": 1, "hidden": 16, "shared": 8, "routing": "sigmoid"},
    "from two of four groups, scaled": {
        "experts": 8, "top_k": 3, "hidden": 8, "shared": 8, "routing": "sigmoid", "normalize_eps": 0.1,
        "groups": 4, "top_groups": 2, "scale": 2.5,
    },
    "groups of one": {"experts": 4, "top_k": 2, "hidden": 8, "groups": 4, "top_groups": 3, "normalize": False},
}  # fmt: skip


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def chosen(layer, score):
    """The experts of the largest scores among those of the best groups."""
    size = len(score) // layer.groups
    groups = [range(g * size, (g + 1) * size) for g in range(layer.groups)]
    groups.sort(key=lambda members: -sum(sorted((score[e] for e in members), reverse=True)[:2]))
    allowed = [e for members in groups[: layer.top_groups] for e in members]
    return sorted(allowed, key=lambda e: -score[e])[: layer.top_k]


def forward(layer, x):
    w = weights(layer)
    logits_to_p = sigmoid if layer.routing == "sigmoid" else softmax

    def expert(name, u):
        gate, up = np.split(linear(w, f"{name}.gate_up_proj", u), 2, axis=-1)
        return linear(w, f"{name}.out_proj", silu(gate) * up)

    def step(u):
        p = logits_to_p(linear(w, "router", u))
        best = chosen(layer, p + w.get("choice_bias", 0))
        total = sum(p[e] for e in best) + layer.normalize_eps if layer.normalize else 1.0
        y = layer.scale * sum(p[e] / total * expert(f"experts.{e}", u) for e in best)
        if layer.shared_expert is not None:
            gate = sigmoid(linear(w, "shared_gate", u)) if "shared_gate.weight" in w else 1.0
            y = y + gate * expert("shared_expert", u)
        return y

    return rows(lambda sequence: np.stack([step(u) for u in sequence]), x)
