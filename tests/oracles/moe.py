"""The mixture of experts step by step, arXiv:1701.06538, eq. 1, with the shared expert of arXiv:2401.06066, eq. 9."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import rows, sigmoid, silu, weights

VARIANTS = {
    "top 2 of 8": {},
    "shared, gated, not normalized": {
        "experts": 4, "top_k": 3, "hidden": 24, "shared": 40, "shared_gate": True, "normalize": False,
    },
    "sigmoid, one expert": {"experts": 4, "top_k": 1, "hidden": 16, "shared": 8, "routing": "sigmoid"},
}  # fmt: skip


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def forward(layer, x):
    w = weights(layer)
    logits_to_p = sigmoid if layer.routing == "sigmoid" else softmax

    def expert(name, u):
        gate, up = np.split(linear(w, f"{name}.gate_up_proj", u), 2, axis=-1)
        return linear(w, f"{name}.out_proj", silu(gate) * up)

    def step(u):
        p = logits_to_p(linear(w, "router", u))
        best = sorted(range(len(p)), key=lambda e: -p[e])[: layer.top_k]
        total = sum(p[e] for e in best) if layer.normalize else 1.0
        y = sum(p[e] / total * expert(f"experts.{e}", u) for e in best)
        if layer.shared_expert is not None:
            gate = sigmoid(linear(w, "shared_gate", u)) if "shared_gate.weight" in w else 1.0
            y = y + gate * expert("shared_expert", u)
        return y

    return rows(lambda sequence: np.stack([step(u) for u in sequence]), x)
