"""Linear attention as attention: o_t = scale · Σ_{s≤t} (q_tᵀ diag(Π_{s<r≤t} d_r) k_s) v_s.

Yang et al. 2023, arXiv:2312.06635, eq. 3, unrolled.

With a bonus the sum runs over s < t with decays up to t − 1, and the present comes in as q_tᵀ diag(u) k_t v_t
(RWKV-5/6, arXiv:2404.05892, eq. 16). A state is one more past term.

The layer likewise, from arXiv:2006.16236, eq. 9, one query at a time.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, weights


def oracle(q, k, v, state, scale, log_decay=None, decay=None, bonus=None):
    batch, steps, heads, _ = v.shape
    group = heads // q.shape[2]
    d = decay if decay is not None else np.ones((batch, steps, heads)) if log_decay is None else np.exp(log_decay)
    d = np.broadcast_to(d if d.ndim == 4 else d[..., None], (batch, steps, heads, q.shape[3]))
    o = np.zeros_like(v)
    last = np.array(state)
    for j in range(heads):
        query, key, decays = q[:, :, j // group], k[:, :, j // group], d[:, :, j]
        for t in range(steps):
            seen, end = (t + 1, t + 1) if bonus is None else (t, t)
            for s in range(seen):
                weight = (query[:, t] * np.prod(decays[:, s + 1 : end], axis=1) * key[:, s]).sum(-1)
                o[:, t, j] += scale * weight[:, None] * v[:, s, j]
            faded = np.prod(decays[:, :end], axis=1)
            o[:, t, j] += scale * np.einsum("bk,bkv->bv", query[:, t] * faded, state[:, j])
            if bonus is not None:
                o[:, t, j] += scale * (query[:, t] * bonus[j] * key[:, t]).sum(-1)[:, None] * v[:, t, j]
        last[:, j] = np.prod(decays, axis=1)[..., None] * state[:, j]
        for s in range(steps):
            last[:, j] += (np.prod(decays[:, s + 1 :], axis=1) * key[:, s])[..., None] * v[:, s, j, None, :]
    return o, (last,)


VARIANTS = {
    "plain": {"heads": 2},
    "grouped": {"heads": 2, "value_heads": 4, "key_size": 6, "value_size": 5, "feature_map": "softmax"},
    "relu": {"heads": 4, "feature_map": "relu"},
    "not normalised": {"heads": 1, "value_heads": 3, "key_size": 7, "value_size": 4, "normalize": False},
    "no feature map": {"heads": 2, "feature_map": "identity", "normalize": False},
}

PHI = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))) + 1,
    "relu": lambda x: np.maximum(x, 0),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "identity": lambda x: x,
}


def forward(layer, x):
    w, size, phi = weights(layer), layer.size, PHI[layer.feature_map]
    H, Hv, K, V = size.heads, size.value_heads, size.key_size, size.value_size

    def row(x):
        q, k, v = np.split(x @ w["qkv_proj.weight"].T, [H * K, 2 * H * K], axis=1)
        q, k, v = phi(q.reshape(-1, H, K)), phi(k.reshape(-1, H, K)), v.reshape(-1, Hv, V)
        out = np.zeros((len(x), Hv, V))
        for t in range(len(x)):
            for head in range(Hv):
                source = head // (Hv // H)
                similarity = k[: t + 1, source] @ q[t, source]
                if layer.normalize:
                    out[t, head] = similarity @ v[: t + 1, head] / (similarity.sum() + layer.eps)
                else:
                    out[t, head] = rms_norm(similarity @ v[: t + 1, head] / np.sqrt(K), w["norm.weight"], 1e-5)
        return out.reshape(len(x), -1) @ w["out_proj.weight"].T

    return rows(row, x)
