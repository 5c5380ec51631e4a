"""The implicit state-space model: a state-space model that reads its own output of the same step."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ritornello import ops
from ritornello.errors import InputError
from ritornello.implicit import ImplicitCell
from ritornello.sequence import Sequence
from ritornello.transition import Decay
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["ImplicitSSMCell"]


class ImplicitSSMCell(ImplicitCell):
    """z_t = f(z_t, u_t, S_{t−1}), S_t = Λ(z_t, u_t) S_{t−1} + k(z_t, u_t) v(z_t, u_t)ᵀ: the matrices of a state-space
    model depend on its own output, so that the state's next value is a nonlinear function of all of it.

    f is Mamba-2's map: g, x, B, C, a = W_z z + u; x, B, C through a short convolution and silu; Δ = softplus(a + bias);
    S ← e^{−eᴬ Δ} S + Δ B xᵀ; z = W_o RMSNorm((Sᵀ C + D x) ⊙ silu(g)). With `residual` it is
    z = RMSNorm(z + f(RMSNorm(z))), a block as its authors have it.

    It is given u (B, T, projected), 2 · heads · value_size + 2 · state_size + heads channels in the order g, x, B, C,
    a. The state is (z, S, the convolution's window).

    Args:
        size: of z.
        heads, value_size, state_size: of S (heads, state_size, value_size).
        decay: maps a to Δ (`step`), and Δ to the logarithm of the decay (`log`), for each head.
        conv_width: taps of the convolution.
        residual: a block around f, which takes two or three times the sweeps.
        gain: by which the first value of W_z is multiplied. Large, and the equation is no contraction any more.

    Source: Schöne et al. 2025, arXiv:2502.07827, eq. 6 to 9, and the authors' code for Mamba-2, which has no gain (1)
    and stops after a given number of sweeps.
    """

    def __init__(
        self,
        size: int,
        heads: int,
        value_size: int,
        state_size: int,
        decay: nn.Module,
        conv_width: int = 4,
        residual: bool = False,
        gain: float = 0.25,
        eps: float = 1e-5,
    ):
        super().__init__()
        for name, given in (("state_size", state_size), ("conv_width", conv_width), ("size", size)):
            if given < 1:
                raise InputError(f"`{name}` of ImplicitSSMCell is {given}; wanted at least 1.")
        self.size, self.heads, self.value_size, self.state_size, self.eps = size, heads, value_size, state_size, eps
        self.inner = heads * value_size
        self.mixed = self.inner + 2 * state_size
        self.in_proj = nn.Linear(size, self.projected, bias=False)
        with torch.no_grad():
            self.in_proj.weight.mul_(gain)
        bound = conv_width**-0.5
        self.conv_weight = nn.Parameter(torch.empty(self.mixed, conv_width).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(self.mixed).uniform_(-bound, bound))
        self.decay = decay
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, size, bias=False)
        self.before = nn.Parameter(torch.ones(size)) if residual else None
        self.after = nn.Parameter(torch.ones(size)) if residual else None

    @property
    def projected(self) -> int:
        """Channels of u."""
        return self.inner + self.mixed + self.heads

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taps = self.conv_weight.shape[1] - 1
        shapes = (self.size,), (self.heads, self.state_size, self.value_size), (self.mixed, taps)
        z, S, window = (like.new_zeros(batch, *s, dtype=accumulation_dtype(like.dtype)) for s in shapes)
        return z, S, window

    def sweep(self, u: Tensor, y: Tensor, h: tuple[Tensor, Tensor, Tensor], sequence: Sequence):
        """Mamba-2's map of a guess z, within the authors' block where there is one."""
        z, S, window = h
        u, y = u.to(S.dtype), y.to(S.dtype)
        seen = y if self.before is None else self._norm(y, self.before)
        new, S, window = self._map(u + F.linear(seen, self.in_proj.weight.to(S.dtype)), S, window, sequence)
        if self.after is not None:
            new = self._norm(y + new, self.after)
        return new, (sequence.shift(new, z)[1], S, window)

    def _map(self, projected: Tensor, S: Tensor, window: Tensor, sequence: Sequence) -> tuple[Tensor, Tensor, Tensor]:
        one = sequence.length == 1 and sequence.cu_seqlens is None
        g, x, a = projected.split([self.inner, self.mixed, self.heads], -1)
        x, window = (_one_tap if one else _all_taps)(x, window, self.conv_weight, self.conv_bias, sequence)
        x, B, C = x.split([self.inner, self.state_size, self.state_size], -1)
        x = x.unflatten(-1, (self.heads, self.value_size))
        step = self.decay.step(a)  # type: ignore[operator]
        log_decay = self.decay.log(step)  # type: ignore[operator]
        B, C = B.unsqueeze(-2), C.unsqueeze(-2)
        transition = Decay(B, x * step.unsqueeze(-1), log_decay, scale=1.0)
        if one:
            now = transition.map(lambda t: t[:, 0])
            before, S = S, now.apply(S)
            o = now.read(C[:, 0], before, S).unsqueeze(1)
        else:
            o, S = transition.scan_read(C, S, sequence.cu_seqlens)
        o = (o + self.D.to(o.dtype).unsqueeze(-1) * x).flatten(-2)
        return F.linear(self._norm(o * F.silu(g), self.norm), self.out_proj.weight.to(o.dtype)), S, window

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), self.eps)

    def finish(self, u: Tensor, y: Tensor) -> Tensor:
        return y.to(u.dtype)


def _all_taps(x: Tensor, window: Tensor, weight: Tensor, bias: Tensor, sequence: Sequence) -> tuple[Tensor, Tensor]:
    return ops.causal_conv(x, weight, bias, "silu", window, cu_seqlens=sequence.cu_seqlens)


def _one_tap(x: Tensor, window: Tensor, weight: Tensor, bias: Tensor, sequence: Sequence) -> tuple[Tensor, Tensor]:
    """The same for one step, in PyTorch's own operations."""
    window = torch.cat([window, x.transpose(1, 2)], -1)
    y = F.silu((window * weight.to(x.dtype)).sum(-1) + bias.to(x.dtype))
    return y.unsqueeze(1), window[..., 1:]
