"""Heads: how many there are and how large, checked once, and the cut of a projection into them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ritornello.layers.base import Leaf, at_least, divide
from ritornello.layers.parts.sizes import heads_for, multiple
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
    def of(
        kind: str,
        width: int,
        heads: int | None = None,
        value_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        *,
        about: int = 64,
    ) -> Heads:
        """The sizes as the options of a layer of `kind` gave them. Where None: heads of about `about` channels, as many
        value heads, keys of width / heads and values of width / value heads.

        Raises:
            InputError: a size below one, heads that do not divide the width, or value heads that are no multiple of
                the heads.
        """
        heads = heads_for(width, about) if heads is None else heads
        named = ("heads", heads) if value_heads is None else ("value_heads", value_heads)
        key_size = divide(kind, "width", width, "heads", heads) if key_size is None else key_size
        value_size = divide(kind, "width", width, *named) if value_size is None else value_size
        found = Heads(heads, named[1], key_size, value_size)
        at_least(1, kind, **asdict(found))
        divide(kind, "value_heads", found.value_heads, "heads", heads)
        return found

    @staticmethod
    def with_wide_values(
        kind: str, width: int, heads: int | None, value_heads: int | None, key_size: int | None, value_size: int | None
    ) -> Heads:
        """As `of`, but where None keys of ¾ · width / heads, rounded to a multiple of 16, and values of twice as many
        channels: the sizes of Gated DeltaNet's authors."""
        heads = heads_for(width) if heads is None else heads
        key_size = multiple(0.75 * width / max(heads, 1), 16) if key_size is None else key_size
        return Heads.of(kind, width, heads, value_heads, key_size, 2 * key_size if value_size is None else value_size)

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

    def only(self, *names: str) -> dict[str, int]:
        """Some of the sizes, by name."""
        return {name: getattr(self, name) for name in names}

    def state(self, columns: int = 0) -> Leaf:
        """The leaf of the state, with `columns` more than the values have."""
        return Leaf((self.value_heads, self.key_size, self.value_size + columns))

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, 2·H·K + Hv·V) → q and k (B, T, H, K), v (B, T, Hv, V)."""
        q, k, v = qkv.split([self.keys, self.keys, self.values], -1)
        q, k = (x.unflatten(-1, (self.heads, self.key_size)) for x in (q, k))
        return q, k, v.unflatten(-1, (self.value_heads, self.value_size))
