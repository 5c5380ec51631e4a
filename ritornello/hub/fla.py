"""What the checkpoints of flash-linear-attention share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ritornello.hub import llama
from ritornello.hub.architecture import Architecture
from ritornello.hub.settings import Key, Rule, Same, Settings, uniform
from ritornello.hub.table import Row, joined, same

__all__ = [
    "IGNORED",
    "KEYS",
    "ROWS",
    "Setting",
    "architecture",
    "convolutions",
    "hidden",
    "norms",
    "per_head",
    "value_size",
]

Setting = Key | Same | Rule
KEYS: tuple[Setting, ...] = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("tie_word_embeddings", "tied_embeddings", False),
    Same("attn", None),
    Same("attnres_block_size", None),
)
IGNORED = (
    "attn_mode", "fuse_cross_entropy", "fuse_linear_cross_entropy", "fuse_norm", "fuse_swiglu", "use_l2warp",
)  # fmt: skip
ROWS = (
    same("model.embeddings.weight", "embedding.weight"),
    same("lm_head.weight", "head.weight"),
)

MLP = (replace(llama.MLP[0], older=same("gate_proj.weight", "gate_up_proj.weight")), *llama.MLP[1:])
"""Until February 2025 one tensor of the name of the gate's held both."""


def architecture(
    name: str,
    prefix: str,
    mixer: str,
    keys: Iterable[Setting],
    rows: Any,
    ignored: Iterable[str] = (),
    fixed: Mapping[str, Any] | None = None,
    norm_eps: bool = True,
    ratio: int = 4,
) -> Architecture:
    """A format whose blocks are `mixer` and a gated feed-forward, with RMS norms.

    Args:
        name: of the format.
        prefix: of their classes.
        mixer: our layer.
        keys: the settings of the layer.
        rows: its tensors.
        ignored: further names that no logit depends on.
        fixed: options of the layer that all models share.
        norm_eps: whether the layer's norm has the ε of the others.
        ratio: of the feed-forward to the width, where a config says none.
    """
    shared = (
        *KEYS,
        Key("norm_eps", ("norm_eps", f"{mixer}.norm_eps") if norm_eps else "norm_eps", 1e-6),
        hidden("gated_mlp", lambda width, told: -(-int(width * (told or 4) * 2 / 3) // 256) * 256, ratio),
        Same("hidden_act", "swish", also=("silu",)),
        Same("elementwise_affine", True),
    )
    return Architecture(
        name=name,
        model=f"{prefix}ForCausalLM",
        settings=Settings(
            (*shared, *keys), **uniform(mixer, "gated_mlp"), ignored=(*IGNORED, *ignored), fixed=fixed or {}
        ),
        rows=(*ROWS, same("model.norm.weight", "backbone.final_norm.weight")),
        block=norms({"attn_norm": "mixer_norm", "mlp_norm": "ffn_norm"}, ("weight",)),
        layers={mixer: ("model.layers.{i}.attn.", rows), "gated_mlp": ("model.layers.{i}.mlp.", MLP)},
    )


def norms(names: Mapping[str, str], parts: Iterable[str]) -> list[Row]:
    """The norms of a block, their name → ours."""
    return [
        same(f"model.layers.{{i}}.{theirs}.{part}", f"backbone.blocks.{{i}}.{ours}.{part}")
        for theirs, ours in names.items()
        for part in parts
    ]


def hidden(ffn: str, usual: Callable[[int, Any], int], ratio: float | None = None) -> Rule:
    """The channels of the feed-forward: as told, or `usual` of the width and their ratio to it; `ratio` is that of a
    config that says none."""

    def read(config: Mapping[str, Any]) -> int:
        return config.get("intermediate_size") or usual(config["hidden_size"], config.get("hidden_ratio", ratio))

    ours = f"{ffn}.hidden"
    return Rule(ours, read, "intermediate_size", lambda settings: settings[ours], uses=("hidden_ratio", "hidden_size"))


def per_head(ours: str, name: str, default: float, heads: str = "num_heads") -> Rule:
    """The size of a head, where theirs is the share `name` that all heads have of the width."""
    count = f"{ours.split('.')[0]}.heads"

    def read(config: Mapping[str, Any]) -> int:
        whole, parts = int(config["hidden_size"] * config.get(name, default)), config[heads]
        if whole % parts:
            raise ValueError(f"{whole} channels, {parts} heads")
        return whole // parts

    def write(settings: Mapping[str, Any]) -> float:
        return _share(settings[count] * settings[ours], settings["width"])

    return Rule(ours, read, name, write, uses=(heads, "hidden_size"))


def value_size(mixer: str, default: float) -> Rule:
    """The values of a head, where theirs is the share ``expand_v`` that they have of its keys."""
    keys, values = f"{mixer}.key_size", f"{mixer}.value_size"
    return Rule(
        values,
        lambda config: int(config["head_dim"] * config.get("expand_v", default)),
        "expand_v",
        lambda ours: _share(ours[values], ours[keys]),
        uses=("head_dim",),
    )


def _share(part: int, whole: int) -> float:
    """part / whole, with which int(whole · share) is `part` again: a product rounded down would lose a channel."""
    share = part / whole
    while int(whole * share) < part:
        share = math.nextafter(share, math.inf)
    return share


def convolutions(sizes: Sequence[int], pooled: bool = False) -> Row:
    """The convolutions of q, k and v, (D, 1, W) each, are one of ours, (D + D + D, W)."""
    row = joined([f"{part}_conv1d.weight" for part in "qkv"], "conv.weight", sizes)
    return Row(
        row.theirs,
        row.ours,
        lambda t: [x.squeeze(1) for x in row.read(t)],
        lambda t: [x.unsqueeze(1) for x in row.write(t)],
        pooled=pooled,
    )
