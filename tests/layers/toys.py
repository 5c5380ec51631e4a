"""Two layers that lean on what the walls promise: a token shift, and a learner that works in chunks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from tests.oracles.numpy_parts import rows, weights

ABOUT = About("A toy", "none", "tests", "none")


class TokenShift(Layer):
    """y_t = W (μ ⊙ x_t + (1 − μ) ⊙ x_{t−1})."""

    kind = "toy_token_shift"
    traits = Traits(ABOUT, affine=False)

    def __init__(self, width: int, **base):
        super().__init__(width, **base)
        self.mu = nn.Parameter(torch.rand(width))
        self.out = nn.Linear(width, width)

    def leaves(self):
        return {"last": Leaf((self.width,), "input")}

    def mix(self, x, state, call: Call):
        before, last = call.sequence.shift(x, state["last"])
        return self.out(self.mu * x + (1 - self.mu) * before), {"last": last}


def token_shift(layer, x):
    w = weights(layer)

    def row(x):
        before = np.vstack([np.zeros((1, layer.width)), x[:-1]])
        return (w["mu"] * x + (1 - w["mu"]) * before) @ w["out.weight"].T + w["out.bias"]

    return rows(row, x)


class ChunkLearner(Layer):
    """A memory W that learns v from k by gradient descent: all gradients of a chunk are taken at its start, and each
    step reads the memory as the gradients up to it have left it: o_t = q_tᵀ (W − η Σ_{s ≤ t in the chunk} ∇_s)."""

    kind = "toy_chunk_learner"
    traits = Traits(ABOUT, affine=False)
    size, rate = 4, 0.1

    def __init__(self, width: int, **base):
        super().__init__(width, **base)
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def leaves(self):
        square = (self.width, self.width)
        return {"W": Leaf(square), "pending": Leaf(square), "phase": Leaf((), "index")}

    def mix(self, x, state, call: Call):
        W, pending, phase = state["W"], state["pending"], state["phase"]
        chunks, real = call.sequence.chunk(self.qkv(x).to(W.dtype).chunk(3, -1), phase, self.size)
        causal = torch.ones(self.size, self.size, dtype=W.dtype).tril()
        end = phase + call.sequence.lengths(x.device)
        outputs = []
        for index, (q, k, v, used) in enumerate(zip(*(c.unbind(1) for c in chunks), real.unbind(1), strict=True)):
            k = torch.where(used.unsqueeze(-1), k, 0)
            error = torch.where(used.unsqueeze(-1), k @ W - v, 0)
            within = (q @ k.transpose(1, 2)) * causal
            outputs.append(q @ (W - self.rate * pending) - self.rate * within @ error)
            pending = pending + k.transpose(1, 2) @ error
            full = (end >= (index + 1) * self.size).view(-1, 1, 1)  # the chunk of this row ends here
            W, pending = torch.where(full, W - self.rate * pending, W), torch.where(full, 0, pending)
        y = call.sequence.unchunk(torch.stack(outputs, 1), phase) if outputs else x.new_zeros(x.shape)
        return y.to(x.dtype), {"W": W, "pending": pending, "phase": end % self.size}


def chunk_learner(layer, x):
    projection = weights(layer)["qkv.weight"]

    def row(x):
        W = np.zeros((layer.width, layer.width))
        out, seen = [], np.zeros_like(W)
        for t, now in enumerate(x):
            q, k, v = np.split(projection @ now, 3)
            seen = seen + np.outer(k, W.T @ k - v)
            out.append((W - layer.rate * seen).T @ q)
            if (t + 1) % layer.size == 0:
                W, seen = W - layer.rate * seen, np.zeros_like(W)
        return np.stack(out)

    return rows(row, x)
