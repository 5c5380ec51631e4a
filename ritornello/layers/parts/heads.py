"""Heads: how many there are and how large, checked once, and the cut of a projection into them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ritornello.errors import InputError
from ritornello.layers.base import Leaf, divide
from ritornello.typing import Tensor

__all__ = ["Heads"]


@dataclass(frozen=True)
class Heads:
    """The sizes of a layer with a matrix state: queries and keys (H, K), values (Hv, V), the state (Hv, K, V).

    Value head j reads query and key head j // (Hv / H).
    """

    heads: int
    value_heads: int
    key_size: int
    value_size: int

    @staticmethod
    def of(kind: str, heads: int, value_heads: int | None, key_size: int, value_size: int) -> Heads:
        """The sizes as an option of a layer of `kind` gave them; as many value heads as heads where None.

        Raises:
            InputError: a size below one, or value heads that are no multiple of the heads.
        """
        found = Heads(heads, heads if value_heads is None else value_heads, key_size, value_size)
        for name, size in asdict(found).items():
            if size < 1:
                raise InputError(f"`{name}` of {kind} is {size}; wanted at least 1.")
        divide(kind, "value_heads", found.value_heads, "heads", heads)
        return found

    @property
    def keys(self) -> int:
        """The channels of all queries, or of all keys."""
        return self.heads * self.key_size

    @property
    def values(self) -> int:
        """The channels of all values."""
        return self.value_heads * self.value_size

    @property
    def spec(self) -> dict[str, int]:
        """The sizes by the names of a layer's options."""
        return asdict(self)

    def state(self, columns: int = 0) -> Leaf:
        """The leaf of the state, with `columns` more than the values have."""
        return Leaf((self.value_heads, self.key_size, self.value_size + columns))

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, 2·H·K + Hv·V) → q and k (B, T, H, K), v (B, T, Hv, V)."""
        q, k, v = qkv.split([self.keys, self.keys, self.values], -1)
        q, k = (x.unflatten(-1, (self.heads, self.key_size)) for x in (q, k))
        return q, k, v.unflatten(-1, (self.value_heads, self.value_size))
