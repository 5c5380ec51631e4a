"""The implicit state-space model."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from ritornello.cells.implicit_ssm import ImplicitSSMCell
from ritornello.layers.base import About, Call, Layer, Leaf, Traits, at_least, divide
from ritornello.layers.parts.cells import run_cell
from ritornello.layers.parts.gates import StepDecay
from ritornello.layers.parts.norm import RMSNorm
from ritornello.layers.parts.sizes import heads_for, multiple
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY

__all__ = ["ImplicitSSM"]


class ImplicitSSM(Layer):
    """z_t = f(z_t, x_t, S_{t−1}), f Mamba-2's map: g, v, B, C, a = W_z z_t + W_x RMSNorm(x_t) + bias; v, B, C through a
    short convolution and silu; S ← e^{−eᴬ Δ} S + Δ B vᵀ, Δ = softplus(a + dt_bias);
    f = W_o RMSNorm((Sᵀ C + D v) ⊙ silu(g)). The output is z, the solution.

    Args:
        width: of x and z.
        heads: of v, of about 64 channels where None.
        expand: channels of v for each of z.
        state_size: of B and C: 128 where None, or the width where it is smaller.
        conv_width: taps of the convolution.
        residual: z = RMSNorm(z + f(RMSNorm(z))), the authors' block, which takes two or three times the sweeps.
        gain: how much W_z starts below the others; where it grows large, the equation may have no solution that sweeps
            find, which is said.

    Source: Schöne et al. 2025, arXiv:2502.07827, eq. 6 to 9; block as in the authors' code, but for the gain.
    """

    kind = "implicit_ssm"
    names = ("z", "S", "conv")
    traits = Traits(
        About(
            "Implicit state-space model",
            "Schöne et al. 2025, Implicit Language Models are RNNs, arXiv:2502.07827",
            "implicit",
            "z_t = f(z_t, x_t, S_{t−1}), S_t = Λ(z_t, x_t) S_{t−1} + k(z_t, x_t) v(z_t, x_t)ᵀ, solved for z_t",
        ),
        affine=False,
    )
    tags: ClassVar = {"cell.D": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        width: int,
        *,
        heads: int | None = None,
        expand: int = 2,
        state_size: int | None = None,
        conv_width: int = 4,
        residual: bool = False,
        gain: float = 0.25,
        **base: Any,
    ):
        super().__init__(width, **base)
        at_least(1, self.kind, expand=expand)
        heads = heads_for(expand * width) if heads is None else heads
        value_size = divide(self.kind, "expand · width", expand * width, "heads", heads)
        state_size = min(128, multiple(width, 16)) if state_size is None else state_size
        self.cell = ImplicitSSMCell(width, heads, value_size, state_size, StepDecay(heads), conv_width, residual, gain)
        self.norm = RMSNorm(width)
        self.injection = nn.Linear(width, self.cell.projected)
        self.spec = {
            "heads": heads,
            "value_size": value_size,
            "state_size": state_size,
            "conv_width": conv_width,
        }

    def leaves(self):
        heads, values, states = (self.spec[name] for name in ("heads", "value_size", "state_size"))
        window = heads * values + 2 * states, self.spec["conv_width"] - 1
        shapes = (self.width,), (heads, states, values), window
        return {name: Leaf(shape) for name, shape in zip(self.names, shapes, strict=True)}

    def mix(self, x, state, call: Call):
        return run_cell(call, self.cell, self.names, self.injection(self.norm(x)), state)
