"""The fixed-point RNN, eq. 8 of arXiv:2503.10799: at each time the diagonal recurrence is iterated until h_t does not
change any more, with Q as a matrix, in float64; Q as in section 3.3 and appendix C.3."""

from __future__ import annotations

import numpy as np

from tests.oracles.mlp import linear
from tests.oracles.numpy_parts import rms_norm, rows, sigmoid, silu, weights

VARIANTS = {
    "plain": {},
    "reflections": {"rank": 3, "expand": 1},
    "linear": {"memory": False, "rank": 2},
    "kronecker": {"mixer": "kronecker", "expand": 3},
}


def householder(numbers, rank, size):
    Q = np.eye(size)
    for i in range(rank):
        u = silu(numbers[i * size : (i + 1) * size])
        u = u / max(np.linalg.norm(u), 1e-6)
        alpha = sigmoid(numbers[rank * size + i])
        Q = (np.eye(size) - alpha * np.outer(u, u)) @ Q
    return Q


def kronecker(numbers, size):
    first = max(n for n in range(1, int(size**0.5) + 1) if size % n == 0)
    sides, found, place = (first, size // first), [], 0
    for side in sides:
        U = np.zeros((side, side))
        for i in range(side):
            for j in range(i, side):
                U[i, j] = silu(numbers[place])
                place += 1
        found.append(U @ U.T)
    for n, side in enumerate(sides):
        d = sigmoid(numbers[place : place + side])
        place += side
        found[n] = np.diag(d) @ found[n] / (np.linalg.norm(found[n], 2) + 1e-6)
    return np.eye(size) - np.kron(*found)


def forward(layer, x):
    w = weights(layer)
    size, mixer = layer.spec["channels"], layer.cell.mixer
    gates = mixer.gates

    def matrix(x, before):
        numbers = w["cell.mixer_ih"] @ x
        if "cell.mixer_hh" in w:
            numbers = numbers + w["cell.mixer_hh"] @ before
        numbers[-gates:] += w["cell.gate_bias"]
        kind = type(mixer).__name__.lower()
        return kronecker(numbers, size) if "kronecker" in kind else householder(numbers, gates, size)

    def row(u):
        x, z = np.split(linear(w, "in_proj", u), 2, axis=1)
        decay = sigmoid(linear(w, "cell.lambda_proj", x))
        b = silu(linear(w, "cell.b_proj", x))
        h, out = np.zeros(size), np.zeros_like(x)
        for t in range(len(u)):
            before, Q, now = h, matrix(x[t], h), np.zeros(size)
            for _ in range(2000):
                now, last = decay[t] * before + (1 - decay[t]) * (Q @ (b[t] * x[t]) + now - Q @ now), now
                if np.abs(now - last).max() < 1e-15:
                    break
            h = now
            c = silu(w["c_proj.weight"] @ np.concatenate([x[t], before]))
            out[t] = rms_norm(c * h * silu(z[t]), w["norm.weight"], 1e-5)
        return linear(w, "out_proj", out)

    return rows(row, x)
