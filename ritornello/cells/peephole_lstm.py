"""The LSTM with peepholes, and the eight that are it but for one part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ritornello.cells._recurrent import GatedCell
from ritornello.errors import InputError, nearest
from ritornello.typing import Tensor

__all__ = ["PeepholeLSTMCell"]


@dataclass(frozen=True)
class _Variant:
    """Which parts an LSTM has: a gate that is missing is 1, or with `coupled` f is 1 − i."""

    missing: str = ""
    coupled: bool = False
    input_activation: bool = True
    output_activation: bool = True
    peepholes: bool = True
    gates_see_gates: bool = False


VARIANTS = {
    "vanilla": _Variant(),
    "nig": _Variant(missing="i"),
    "nfg": _Variant(missing="f"),
    "nog": _Variant(missing="o"),
    "niaf": _Variant(input_activation=False),
    "noaf": _Variant(output_activation=False),
    "cifg": _Variant(missing="f", coupled=True),
    "np": _Variant(peepholes=False),
    "fgr": _Variant(gates_see_gates=True),
}


class PeepholeLSTMCell(GatedCell):
    """i = σ(a_i + p_i ⊙ c_{t−1}), f = σ(a_f + p_f ⊙ c_{t−1}), z = tanh(a_z) with a = W x_t + R h_{t−1} + b;
    c_t = f ⊙ c_{t−1} + i ⊙ z;  o = σ(a_o + p_o ⊙ c_t);  h_t = o ⊙ tanh c_t.

    The variants of the paper each change one part: ``"nig"``, ``"nfg"``, ``"nog"`` no input, forget or output gate
    (it is 1); ``"niaf"``, ``"noaf"`` no activation of the input (z = a_z) or of the output (h = o ⊙ c); ``"cifg"``
    coupled gates, f = 1 − i; ``"np"`` no peepholes; ``"fgr"`` full gate recurrence: a_i, a_f, a_o also see all three
    gates of the step before, by a matrix each, and the state holds them.

    The rows of the weights stand in the order i, f, z, o, without the gate that is missing; those of `peephole`
    likewise, without z; `weight_gates` is [to, from, head, out, in].

    Args:
        input_size, hidden_size: of x (B, T, input_size) and h (B, T, hidden_size).
        heads: the recurrent matrices are block-diagonal with as many blocks; 1: dense.
        variant: ``"vanilla"``, or one of the above.

    Source: Greff et al. 2015, "LSTM: A Search Space Odyssey", arXiv:1503.04069, sections 2 and 3 and appendix A;
    peepholes: Gers and Schmidhuber 2000.
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int = 1, variant: str = "vanilla"):
        if variant not in VARIANTS:
            raise InputError(f"`variant` of PeepholeLSTMCell is {variant!r}. {nearest(str(variant), VARIANTS)}")
        made = VARIANTS[variant]
        kinds = tuple(k for k in "ifzo" if k != made.missing)
        super().__init__(input_size, hidden_size, heads, gates=len(kinds))
        self.variant, self.kinds, self.made = variant, kinds, made
        self.looking = tuple(k for k in kinds if k != "z")
        self.states = 5 if made.gates_see_gates else 2
        bound, size = hidden_size**-0.5, hidden_size // heads
        if made.peepholes:
            self.peephole = nn.Parameter(torch.empty(len(self.looking), hidden_size).uniform_(-bound, bound))
        if made.gates_see_gates:
            self.weight_gates = nn.Parameter(torch.empty(3, 3, heads, size, size).uniform_(-bound, bound))

    def step(self, u: Tensor, h: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, c, *gates = h
        sums = dict(zip(self.kinds, (u.to(c.dtype) + self.recurrent(hidden)).unbind(1), strict=True))
        if gates:
            seen = torch.stack(gates, 1).unflatten(-1, self.weight_gates.shape[2:4])
            extra = torch.einsum("tfhoi,bfhi->btho", self.weight_gates.to(c.dtype), seen).flatten(-2)
            sums |= {k: sums[k] + more for k, more in zip("ifo", extra.unbind(1), strict=True)}
        i = self._gate("i", sums, c)
        f = 1 - i if self.made.coupled else self._gate("f", sums, c)
        c = f * c + i * (torch.tanh(sums["z"]) if self.made.input_activation else sums["z"])
        o = self._gate("o", sums, c)
        new = o * (torch.tanh(c) if self.made.output_activation else c)
        return (new, c, i, f, o) if gates else (new, c)

    def _gate(self, kind: str, sums: dict[str, Tensor], c: Tensor) -> Tensor:
        if kind not in sums:
            return torch.ones_like(c)
        seen = self.peephole[self.looking.index(kind)].to(c.dtype) * c if self.made.peepholes else 0
        return torch.sigmoid(sums[kind] + seen)
