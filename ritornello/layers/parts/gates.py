"""Gates: the norm that a gate multiplies, decays from a step size, and their initialisations."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY
from ritornello.ops import rms_norm, swiglu
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["GatedNorm", "NormOfGated", "StepDecay", "inverse_softplus_of_steps", "write_strength"]


class GatedNorm(nn.Module):
    """y = RMSNorm(o) ⊙ silu(g): per head, over the value size, as GLA and the delta rules end.

    With `centred` the mean is subtracted as well, and there are no weights: the group norm of RetNet. With `sigmoid`
    the gate is σ(g): Kimi's.
    """

    def __init__(self, size: int, eps: float = 1e-5, centred: bool = False, sigmoid: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(size, eps, elementwise_affine=False) if centred else RMSNorm(size, eps)
        self.sigmoid = sigmoid

    def forward(self, o: Tensor, gate: Tensor) -> Tensor:
        """o (B, T, H, V) and gate (B, T, H·V) → (B, T, H·V)."""
        if self.sigmoid:
            return self.norm(o).flatten(-2) * torch.sigmoid(gate)
        if isinstance(self.norm, RMSNorm):
            return self.norm(o, gate.unflatten(-1, o.shape[-2:])).flatten(-2)
        return swiglu(gate, self.norm(o).flatten(-2))


class NormOfGated(nn.Module):
    """y = RMSNorm(o ⊙ silu(g)), each of `groups` equal parts of the channels for itself, as Mamba-2 ends; or with
    `gate_last` RMSNorm(o) ⊙ silu(g)."""

    def __init__(self, size: int, groups: int = 1, eps: float = 1e-5, gate_last: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.groups, self.eps, self.gate_last = groups, eps, gate_last

    def forward(self, o: Tensor, gate: Tensor) -> Tensor:
        """o and gate (B, T, D) → (B, T, D)."""
        if self.gate_last:
            return swiglu(gate, self._norm(o))
        return self._norm(swiglu(gate, o))

    def _norm(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return rms_norm(x, self.weight, eps=self.eps)
        return self.weight.to(x.dtype) * rms_norm(x.unflatten(-1, (self.groups, -1)), eps=self.eps).flatten(-2)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, groups={self.groups}, eps={self.eps}"


class StepDecay(nn.Module):
    """log d = −e^{A_log} · softplus(a + dt_bias), one per head: the decay of Mamba-2 and Gated DeltaNet.

    With `size` above 1 there are as many steps Δ in a head, one after the other along the last dimension: Kimi's. Kept
    in float32: the product of thousands of decays underflows bfloat16.
    """

    tags: ClassVar = {"A_log": (NO_WEIGHT_DECAY, KEEP_FLOAT32), "dt_bias": (NO_WEIGHT_DECAY, KEEP_FLOAT32)}

    def __init__(self, heads: int, low: float = 1.0, high: float = 16.0, size: int = 1):
        super().__init__()
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(low, high).log())
        self.dt_bias = nn.Parameter(inverse_softplus_of_steps(heads * size))

    def step(self, a: Tensor) -> Tensor:
        """The step size Δ = softplus(a + dt_bias), in float32 or wider."""
        wide = accumulation_dtype(a.dtype)
        return F.softplus(a.to(wide) + self.dt_bias.to(wide))

    def log(self, step: Tensor) -> Tensor:
        """log d for the step size Δ."""
        rate = self.A_log.to(step.dtype).exp()
        if step.shape[-1] != rate.shape[0]:
            rate = rate.repeat_interleave(step.shape[-1] // rate.shape[0])
        return -rate * step

    def forward(self, a: Tensor) -> Tensor:
        return self.log(self.step(a))


def write_strength(logits: Tensor, negative_eigenvalues: bool) -> Tensor:
    """β of a delta rule, σ(logits) in float32 or wider; doubled, the transition's eigenvalue along k, 1 − β, reaches
    −1."""
    beta = torch.sigmoid(logits.to(accumulation_dtype(logits.dtype)))
    return 2 * beta if negative_eigenvalues else beta


def inverse_softplus_of_steps(size: int, low: float = 1e-3, high: float = 1e-1, floor: float = 1e-4) -> Tensor:
    """Biases whose softplus is log-uniform in [low, high]: the step sizes at the start, as Mamba's authors draw
    them."""
    step = torch.exp(torch.rand(size) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
    return step + torch.log(-torch.expm1(-step))
