"""DeltaProduct."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from ritornello.layers.base import About, Call, Layer, Traits, at_least
from ritornello.layers.parts.conv import ShortConv
from ritornello.layers.parts.gates import GatedNorm, StepDecay, write_strength
from ritornello.layers.parts.heads import Heads
from ritornello.layers.parts.norm import l2_normalize
from ritornello.sequence import Sequence
from ritornello.transition import Delta

__all__ = ["DeltaProduct"]


class DeltaProduct(Layer):
    """S ← α_t S, then n times S ← (I − β_i k_i k_iᵀ) S + β_i k_i v_iᵀ with keys, values and β of their own,
    o_t = Sᵀ q_t / √K: each step of time turns the state by a product of n Householder matrices. q, k, v through a short
    convolution and silu, ‖q‖ = ‖k‖ = 1, β = 2 σ(W_b x), α = exp(−e^{A_log} softplus(W_a x + dt_bias));
    y = W_o (RMSNorm(o) ⊙ silu(W_g x)).

    The n updates of a step stand in time one after the other; only the last is read.

    Args:
        width: of x.
        householders: n.
        heads: of queries and keys.
        value_heads: a multiple of `heads`; as many where None.
        key_size: ¾ · width / heads where None, rounded to a multiple of 16.
        value_size: 2 · key_size where None.
        conv_width: taps of the convolution.
        decay: whether there is α (Gated DeltaProduct); without, α = 1.
        negative_eigenvalues: β in (0, 2), where two reflections make a rotation; False: β = σ(W_b x).

    Source: Siems et al. 2025, arXiv:2502.10297, eq. 4 and section 3; sizes and initialisation as in the authors' code,
    in flash-linear-attention.
    """

    kind = "delta_product"
    traits = Traits(
        About(
            "DeltaProduct",
            "Siems et al. 2025, DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products, "
            "arXiv:2502.10297",
            "delta rule",
            "S ← α S, then n times S ← (I − β k kᵀ) S + β k vᵀ, o = Sᵀ q",
        )
    )

    def __init__(
        self,
        width: int,
        *,
        householders: int = 2,
        heads: int | None = None,
        value_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        conv_width: int = 4,
        decay: bool = True,
        negative_eigenvalues: bool = True,
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, householders=householders)
        self.size = Heads.with_wide_values(self.kind, width, heads, value_heads, key_size, value_size)
        self.householders, self.negative_eigenvalues = householders, negative_eigenvalues
        keys, values = self.size.keys, self.size.values
        channels = keys + householders * (keys + values)
        self.qkv_proj = nn.Linear(width, channels, bias=False)  # queries, n times keys, n times values
        self.conv = ShortConv(channels, conv_width)
        self.beta_proj = nn.Linear(width, householders * self.size.value_heads, bias=False)
        self.decay_proj = nn.Linear(width, self.size.value_heads, bias=False) if decay else None
        self.decay = StepDecay(self.size.value_heads, low=1e-3) if decay else None
        self.gate_proj = nn.Linear(width, values, bias=False)
        self.norm = GatedNorm(self.size.value_size)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.spec = {**self.size.spec, "householders": householders, "conv_width": conv_width}

    def leaves(self):
        return {"S": self.size.state(), "conv": self.conv.leaf()}

    def mix(self, x, state, call: Call):
        n, size = self.householders, self.size
        qkv, window = self.conv(self.qkv_proj(x), state["conv"], call)
        q, k, v = qkv.split([size.keys, n * size.keys, n * size.values], -1)
        q = l2_normalize(q.unflatten(-1, (size.heads, size.key_size))).repeat_interleave(n, 1)
        k = l2_normalize(k.unflatten(-1, (n, size.heads, size.key_size)).flatten(1, 2))
        v = v.unflatten(-1, (n, size.value_heads, size.value_size)).flatten(1, 2)
        beta = write_strength(self.beta_proj(x), self.negative_eigenvalues)
        beta = beta.unflatten(-1, (n, size.value_heads)).flatten(1, 2)
        log_decay = None
        if self.decay is not None and self.decay_proj is not None:  # α acts before the first of the n
            log_decay = F.pad(self.decay(self.decay_proj(x)).unsqueeze(2), (0, 0, 0, n - 1)).flatten(1, 2)
        o, S = call.over(_repeated(call.sequence, n)).solve(Delta(k, v, beta, log_decay), q, state["S"])
        return self.out_proj(self.norm(o[:, n - 1 :: n], self.gate_proj(x))), {"S": S, "conv": window}


def _repeated(sequence: Sequence, n: int) -> Sequence:
    """The sequences with n steps for each."""
    ends, longest = sequence.cu_seqlens, sequence.longest
    return Sequence(
        sequence.batch,
        sequence.length * n,
        None if ends is None else ends * n,
        None if longest is None else longest * n,
    )
