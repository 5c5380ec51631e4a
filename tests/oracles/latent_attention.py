"""Multi-head latent attention, arXiv:2405.04434, section 2.1: every key and value is made, one query at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.attention import turned
from tests.oracles.numpy_parts import rms_norm, rows, weights

VARIANTS = {
    "plain": {"heads": 4},
    "no positions": {
        "heads": 2, "key_size": 6, "value_size": 5, "shared_size": 3, "rank": 7, "query_rank": 9, "rope_base": None,
    },
    "short": {"heads": 4, "key_size": 8, "shared_size": 2, "rank": 4, "rope_base": 50.0, "norm_eps": 0.01},
}  # fmt: skip


def forward(layer, x):
    w, eps = weights(layer), layer.kv_norm.eps
    H, K, V, R = layer.heads, layer.key_size, layer.value_size, layer.shared_size

    def placed(part):
        """(T, heads, R), turned by the position."""
        return part if layer.rope_base is None else turned(part, layer.rope_base, R, None)

    def row(x):
        if "q_proj.weight" in w:
            q = x @ w["q_proj.weight"].T
        else:
            q = rms_norm(x @ w["q_proj.down.weight"].T, w["q_proj.activation.weight"], eps) @ w["q_proj.up.weight"].T
        q = q.reshape(len(x), H, K + R)
        both = x @ w["kv_down.weight"].T
        c = rms_norm(both[:, : layer.rank], w["kv_norm.weight"], eps)
        shared = placed(both[:, None, layer.rank :])[:, 0]
        turned_q = placed(q[..., K:])
        made = (c @ w["kv_up.weight"].T).reshape(len(x), H, K + V)
        out = np.zeros((len(x), H, V))
        for t in range(len(x)):
            for h in range(H):
                score = made[: t + 1, h, :K] @ q[t, h, :K] + shared[: t + 1] @ turned_q[t, h]
                p = np.exp((score - score.max()) / np.sqrt(K + R))
                out[t, h] = (p / p.sum()) @ made[: t + 1, h, K:]
        return out.reshape(len(x), -1) @ w["out_proj.weight"].T

    return rows(row, x)
