"""Mixtures of experts in checkpoints: their tensors, and which blocks have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ritornello.hub.table import Row, joined, same
from ritornello.typing import Tensor

__all__ = ["DENSE", "SPARSE", "expert_rows", "experts_of", "names_of_mixers", "with_experts"]

DENSE, SPARSE = " and an MLP", " and experts"
"""What follows the name of a mixer, where blocks with one feed-forward and blocks with the other are told apart."""


def with_experts(types: Mapping[str, tuple[str, str | None]]) -> dict[str, tuple[str, str | None]]:
    """Blocks of these mixers, with an MLP and with experts."""
    ffns = {DENSE: "gated_mlp", SPARSE: "moe"}
    return {name + ffn: (mixer, kind) for name, (mixer, _) in types.items() for ffn, kind in ffns.items()}


def names_of_mixers(names: Sequence[str]) -> list[str]:
    """The names without what `with_experts` appended."""
    return [name.removesuffix(DENSE).removesuffix(SPARSE) for name in names]


def experts_of(names: Sequence[str]) -> list[bool]:
    """Which of the blocks have experts."""
    return [name.endswith(SPARSE) for name in names]


def expert_rows(layer: Any, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> list[Row]:
    """The rows of all experts of a mixture, by number, by their names for the three matrices; files may hold those of
    all experts in two tensors."""
    rows, count = [], len(layer.experts)
    for e in range(count):
        at = f"experts.{e}."
        parts = {
            "gate_up_proj": joined((f"{at}{gate}.weight", f"{at}{up}.weight"), f"{at}gate_up_proj.weight"),
            "down_proj": same(f"{at}{down}.weight", f"{at}out_proj.weight"),
        }
        rows += [replace(row, older=_one_of(f"experts.{name}", row.ours, e, count)) for name, row in parts.items()]
    return rows


def _one_of(theirs: str, ours: tuple[str, ...], e: int, count: int) -> Row:
    """Theirs holds `count` such tensors as ours, which is the one of number e."""

    def whole(tensors: Sequence[Tensor]) -> Sequence[Tensor]:  # of its shape: such a row is read, never written
        return (tensors[0].expand(count, *tensors[0].shape),)

    return Row((theirs,), ours, lambda t: (t[0][e],), whole, copies=False)
