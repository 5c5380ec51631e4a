"""Softmax attention with rotary positions as complex rotations (arXiv:2104.09864, eq. 12), one query at a time."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import rms_norm, rows, sigmoid, weights

VARIANTS = {
    "plain": {"heads": 4},
    "grouped": {"heads": 4, "kv_heads": 2, "bias": True, "qk_norm": True},
    "window": {"heads": 2, "window": 5},
    "window of one": {"heads": 2, "window": 1},
    "gate": {
        "heads": 4,
        "kv_heads": 2,
        "key_size": 6,
        "rope_size": 4,
        "gate": True,
        "out_bias": True,
        "qk_norm": "head",
        "zero_centred": True,
    },
    "stretched": {"heads": 2, "rope_base": 100.0, "rope_scaling": {"factor": 3.0}},
    "some stretched": {
        "heads": 2,
        "rope_base": 100.0,
        "rope_scaling": {"factor": 3.0, "low": 1.0, "high": 4.0, "length": 64},
    },
    "yarn": {
        "heads": 2,
        "rope_base": 50.0,
        "rope_scaling": {"factor": 4.0, "length": 64, "fast": 6.0, "slow": 0.5, "whole": False},
    },
    "no positions": {"heads": 4, "kv_heads": 2, "rope_size": 0, "qk_norm": "all", "norm_eps": 1e-3},
}


def yarn(theta, base, stretch):
    """Frequencies by how often their pair turns: where `fast` times or more they stay, where `slow` times or less they
    are divided, in between by a share that is linear in the place where a pair would turn as often."""
    out = []
    for i, one in enumerate(theta):
        place = [
            len(theta) * np.log(stretch.length / (2 * np.pi * n)) / np.log(base) for n in (stretch.fast, stretch.slow)
        ]
        share = np.interp(i, place, [0.0, 1.0])
        out.append(share * one / stretch.factor + (1 - share) * one)
    return np.array(out)


def stretched(theta, base, stretch):
    """Frequencies by the wavelengths of Llama 3.1: short ones stay, long ones are divided, in between a mixture."""
    if stretch is None:
        return theta
    if hasattr(stretch, "fast"):
        return yarn(theta, base, stretch)
    if stretch.length is None:
        return theta / stretch.factor
    out = []
    for one in theta:
        wavelength = 2 * np.pi / one
        if wavelength < stretch.length / stretch.high:
            out.append(one)
        elif wavelength > stretch.length / stretch.low:
            out.append(one / stretch.factor)
        else:
            smooth = (stretch.length / wavelength - stretch.low) / (stretch.high - stretch.low)
            out.append((1 - smooth) * one / stretch.factor + smooth * one)
    return np.array(out)


def turned(x, base, size, stretch):
    """(T, H, D): of the first `size` channels the pair (i, i + size/2) as a complex number, times e^{i t θ}."""
    x, rest = x[..., :size], x[..., size:]
    half = size // 2
    theta = stretched(base ** (-2 * np.arange(half) / size), base, stretch)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.arange(len(x))[:, None, None] * theta)
    if hasattr(stretch, "fast"):
        z = z * (1 + np.log(stretch.factor) / 10)
    return np.concatenate([z.real, z.imag, rest], -1)


def normed(x, w, name, layer):
    """(T, H·K) → (T, H, K), over each head or over all of them."""
    heads = (len(x), -1, layer.key_size)
    if name not in w:
        return x.reshape(heads)
    x = x if layer.qk_norm == "all" else x.reshape(heads)
    return rms_norm(x, w[name] + layer.q_norm.zero_centred, layer.q_norm.eps).reshape(heads)


def forward(layer, x):
    w = weights(layer)
    heads, kv_heads, K = layer.heads, layer.kv_heads, layer.key_size

    def row(x):
        q = x @ w["q_proj.weight"].T + w.get("q_proj.bias", 0)
        k, v = np.split(x @ w["kv_proj.weight"].T + w.get("kv_proj.bias", 0), 2, axis=1)
        v = v.reshape(len(x), kv_heads, K)
        q, k = normed(q, w, "q_norm.weight", layer), normed(k, w, "k_norm.weight", layer)
        q, k = (turned(t, layer.rope_base, layer.rope_size, layer.stretch) for t in (q, k))
        out = np.zeros((len(x), heads, K))
        for t in range(len(x)):
            first = 0 if layer.window is None else max(0, t - layer.window + 1)
            for head in range(heads):
                source = head // (heads // kv_heads)
                score = k[first : t + 1, source] @ q[t, head] / np.sqrt(K)
                p = np.exp(score - score.max())
                out[t, head] = (p / p.sum()) @ v[first : t + 1, source]
        out = out.reshape(len(x), -1)
        if "gate_proj.weight" in w:
            out = out * sigmoid(x @ w["gate_proj.weight"].T + w.get("gate_proj.bias", 0))
        return out @ w["out_proj.weight"].T + w.get("out_proj.bias", 0)

    return rows(row, x)
