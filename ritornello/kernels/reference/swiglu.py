"""y = silu(gate) ⊙ up."""

from __future__ import annotations

from ritornello.typing import accumulation_dtype


def forward(gate, up, save):
    wide = gate.to(accumulation_dtype(gate.dtype))
    return ((wide * wide.sigmoid() * up.to(wide.dtype)).to(gate.dtype),), None
