"""What a model is made of, as a value that reads and writes JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, TypeAlias

from ritornello.errors import InputError, nearest
from ritornello.layers import find

__all__ = ["Entry", "ModelConfig", "Parallel", "Repeat", "as_entry", "entry_to_json"]

NORMS = ("rms_norm", "zero_centred_rms_norm", "layer_norm")
COMBINES = ("mean", "sum")


@dataclass(frozen=True, init=False)
class Parallel:
    """Mixers side by side: all read the same normed input, and their outputs are averaged or summed.

        Parallel("attention", "mamba2")              # a hybrid-head block

    Args:
        mixers: names, or (name, options).
        combine: ``"mean"`` or ``"sum"``.
    """

    mixers: tuple[Entry, ...]
    combine: str = "mean"

    def __init__(self, *mixers: Entry, combine: str = "mean"):
        if not mixers:
            raise InputError("Parallel was given no mixers; wanted layers, e.g. Parallel('attention', 'mamba2').")
        if combine not in COMBINES:
            raise InputError(f"`combine` of Parallel is {combine!r}; it takes 'mean' or 'sum'.")
        object.__setattr__(self, "mixers", tuple(as_entry(m) for m in mixers))
        object.__setattr__(self, "combine", combine)
        if any(isinstance(m, (Parallel, Repeat)) for m in self.mixers):
            raise InputError(
                "Parallel was given a Parallel or a Repeat; it takes layers only: put the Repeat around it."
            )


@dataclass(frozen=True, init=False)
class Repeat:
    """Blocks that are run n times over, with the same weights each time and a state of its own for each time.

        Repeat(3, "gla", "attention")                # gla attention gla attention gla attention, two blocks of weights

    Args:
        n: how many times.
        blocks: entries of a pattern.
    """

    n: int
    blocks: tuple[Entry, ...]

    def __init__(self, n: int, *blocks: Entry):
        _positive("n", "Repeat", n)
        if not blocks:
            raise InputError("Repeat was given no blocks; wanted names of layers, e.g. Repeat(3, 'gla', 'attention').")
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "blocks", tuple(as_entry(b) for b in blocks))


Entry: TypeAlias = str | tuple[str, Mapping[str, Any]] | Parallel | Repeat


@dataclass(frozen=True)
class ModelConfig:
    """A stack of pre-norm residual blocks, x ← x + mixer(norm(x)), x ← x + ffn(norm(x)).

        rt.ModelConfig(vocab_size=256, width=256, depth=8,
                       pattern=["gated_delta_net"] * 3 + [("attention", {"window": 256})])

    Args:
        vocab_size: how many tokens there are.
        width: of the residual stream.
        pattern: entries that are cycled through until there are `depth`: a layer's name, (name, options), `Parallel` or
            `Repeat` (one entry, however many blocks it runs). One string may hold several names, with commas between.
        depth: how many entries; those of the pattern, once, where None.
        ffn: the feed-forward of every block: a name, (name, options), or None; or a list of those, cycled through as
            the pattern is.
        tied_embeddings: the output weights are the embeddings.
        norm: ``"rms_norm"``, ``"zero_centred_rms_norm"`` (times 1 + weight, as in Gemma) or ``"layer_norm"``.
        norm_eps: of the norms.
        halve_every: how many blocks it takes to halve the residual stream and what is added to it from there on; never
            where 0. Numbers and weights stay as they are, as norms do not see a factor: but their eps counts four times
            as much. RWKV-4 predicts so.
        norm_after: mixers whose blocks norm what their layers return rather than what they read, as in OLMo 2.
        embedding_norm: whether the embeddings are normed, as in RWKV.
        final_norm: whether the last block's output is normed.
        dropout: of each residual branch, in training.
        logits_soft_cap: c, for logits c · tanh(logits / c).
        embedding_scale: what the embeddings are multiplied by, e.g. √width.
        residual_float32: keep the residual stream in float32 where the weights are narrower.
        init_std: standard deviation of the projections' and embeddings' initialisation.

    Raises:
        InputError: an unknown layer or option, or a value out of its range.
    """

    vocab_size: int
    width: int
    pattern: Any = "gated_delta_net"
    depth: int | None = None
    ffn: Any = "gated_mlp"
    tied_embeddings: bool = True
    norm: str = "rms_norm"
    norm_eps: float = 1e-6
    halve_every: int = 0
    norm_after: tuple[str, ...] = ()
    embedding_norm: bool = False
    final_norm: bool = True
    dropout: float = 0.0
    logits_soft_cap: float | None = None
    embedding_scale: float | None = None
    residual_float32: bool = False
    init_std: float = 0.02

    def __post_init__(self):
        _positive("vocab_size", "ModelConfig", self.vocab_size)
        _positive("width", "ModelConfig", self.width)
        pattern = as_pattern(self.pattern)
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "depth", len(pattern) if self.depth is None else self.depth)
        _positive("depth", "ModelConfig", self.depth)
        ffn = tuple(map(as_feed_forward, self.ffn)) if _is_list(self.ffn) else as_feed_forward(self.ffn)
        if ffn == ():
            raise InputError("`ffn` is an empty list; wanted at least one feed-forward, or None.")
        object.__setattr__(self, "ffn", ffn)
        if self.norm not in NORMS:
            raise InputError(f"`norm` is {self.norm!r}. {nearest(str(self.norm), NORMS)}")
        if not isinstance(self.halve_every, int) or self.halve_every < 0:
            raise InputError(f"`halve_every` is {self.halve_every!r}; wanted a number of blocks, or 0.")
        object.__setattr__(self, "norm_after", tuple(self.norm_after))
        for name in self.norm_after:
            find(name)
        if not 0 <= self.dropout < 1:
            raise InputError(f"`dropout` is {self.dropout}; wanted a share from 0 to below 1.")
        number = isinstance(self.norm_eps, (int, float)) and not isinstance(self.norm_eps, bool)
        if not number or not 0 < self.norm_eps < inf:
            raise InputError(f"`norm_eps` is {self.norm_eps!r}; wanted a small positive number.")
        if self.logits_soft_cap is not None and not self.logits_soft_cap > 0:
            raise InputError(f"`logits_soft_cap` is {self.logits_soft_cap}; wanted a positive bound, or None.")

    def halved(self, i: int) -> ModelConfig:
        """The config as block i finds it, or, with i = depth, the final norm."""
        if self.halve_every == 0:
            return self
        return replace(self, norm_eps=self.norm_eps * 4 ** (i // self.halve_every))

    def entries(self) -> tuple[Entry, ...]:
        """The pattern, cycled to `depth` entries."""
        return tuple(self.pattern[i % len(self.pattern)] for i in range(self.depth or 0))

    def feed_forwards(self) -> tuple[Entry | None, ...]:
        """The feed-forward of each entry."""
        cycle = self.ffn if _is_list(self.ffn) else (self.ffn,)
        return tuple(cycle[i % len(cycle)] for i in range(self.depth or 0))

    def blocks(self) -> Iterator[Entry]:
        """The mixers in the order in which they are run, repetitions written out."""

        def flat(entries: Sequence[Entry]) -> Iterator[Entry]:
            for entry in entries:
                if isinstance(entry, Repeat):
                    for _ in range(entry.n):
                        yield from flat(entry.blocks)
                else:
                    yield entry

        return flat(self.entries())

    def to_dict(self) -> dict[str, Any]:
        """A JSON value from which `from_dict` makes this config again."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["pattern"] = [entry_to_json(e) for e in self.pattern]
        plain["ffn"] = [_to_json(f) for f in self.ffn] if _is_list(self.ffn) else _to_json(self.ffn)
        return plain

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ModelConfig:
        """The config of a JSON value.

        Raises:
            InputError: a field that there is not, or that is missing.
        """
        known = [f.name for f in fields(ModelConfig)]
        for name in values:
            if name not in known:
                raise InputError(f"A model's config has no field {name!r}. {nearest(str(name), known)}")
        missing = [name for name in ("vocab_size", "width") if name not in values]
        if missing:
            raise InputError(f"A model's config lacks {missing[0]!r}; it needs vocab_size and width.")
        return ModelConfig(**values)


# ---------------------------------------------------------------------------------------------------- entries and JSON


def as_pattern(pattern: Any) -> tuple[Entry, ...]:
    """A pattern of any accepted form as a tuple of entries."""
    if isinstance(pattern, str):
        pattern = [name.strip() for name in pattern.split(",")]
    elif isinstance(pattern, (Parallel, Repeat)) or _is_pair(pattern):
        pattern = [pattern]
    if not isinstance(pattern, Sequence) or not pattern:
        raise InputError(f"`pattern` is {pattern!r}; wanted at least one layer, e.g. ['gated_delta_net', 'attention'].")
    return tuple(as_entry(e) for e in pattern)


def as_entry(entry: Any) -> Entry:
    """One entry, from Python or from JSON; every name in it is looked up."""
    if isinstance(entry, (Parallel, Repeat)):
        return entry
    if isinstance(entry, str):
        find(entry)
        return entry
    if _is_pair(entry):
        find(entry[0])
        return entry[0], dict(entry[1])
    if isinstance(entry, Mapping) and set(entry) <= {"parallel", "combine"} and "parallel" in entry:
        return Parallel(*entry["parallel"], combine=entry.get("combine", "mean"))
    if isinstance(entry, Mapping) and set(entry) == {"repeat", "blocks"}:
        return Repeat(entry["repeat"], *entry["blocks"])
    raise InputError(
        f"An entry of the pattern is {entry!r}; wanted a layer's name, (name, options), Parallel(...) or Repeat(n, ...)"
        "."
    )


def as_feed_forward(entry: Any) -> Entry | None:
    """One feed-forward, from Python or from JSON."""
    made = None if entry is None else as_entry(entry)
    if isinstance(made, (Parallel, Repeat)):
        raise InputError("`ffn` is a node of a pattern; wanted one layer: a name, (name, options) or None.")
    return made


def _to_json(entry: Entry | None) -> Any:
    return None if entry is None else entry_to_json(entry)


def entry_to_json(entry: Entry) -> Any:
    """``"gla"``, ``["gla", {...}]``, ``{"parallel": [...], "combine": ...}`` or ``{"repeat": n, "blocks": [...]}``."""
    if isinstance(entry, Parallel):
        return {"parallel": [entry_to_json(m) for m in entry.mixers], "combine": entry.combine}
    if isinstance(entry, Repeat):
        return {"repeat": entry.n, "blocks": [entry_to_json(b) for b in entry.blocks]}
    return entry if isinstance(entry, str) else [entry[0], dict(entry[1])]


def _is_list(ffn: Any) -> bool:
    """Whether these are feed-forwards to be cycled through, and not one with its options."""
    return isinstance(ffn, (list, tuple)) and not _is_pair(ffn)


def _is_pair(entry: Any) -> bool:
    """Whether this is (name, options), and not a pattern of a name and a node in JSON."""
    return (
        isinstance(entry, (tuple, list))
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], Mapping)
        and not {"parallel", "repeat"} & set(entry[1])
    )


def _positive(name: str, owner: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"`{name}` of {owner} is {value!r}; wanted a positive integer.")
