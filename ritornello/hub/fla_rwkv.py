"""RWKV-6 and RWKV-7 as flash-linear-attention keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ritornello.hub.architecture import Architecture
from ritornello.hub.fla import IGNORED, KEYS, ROWS, Setting, hidden, norms, per_head
from ritornello.hub.settings import Key, Rule, Same, Settings, uniform
from ritornello.hub.table import Row, same

__all__ = ["RWKV6", "RWKV7"]

PARTS = ("weight", "bias")


def _architecture(version: int, ratio: float, keys: Iterable[Setting], mixer: Any, ffn: Any) -> Architecture:
    kind, mix = f"rwkv{version}", f"rwkv{version}_channel_mix"
    shared = (
        *KEYS,
        Key("norm_eps", "norm_eps", 1e-5),
        hidden(mix, lambda width, given: -(-int(width * (given or ratio)) // 32) * 32),
        Same("hidden_act", "sqrelu"),
        Same("norm_first", True),
        Same("norm_bias", True),
    )
    return Architecture(
        name=kind,
        model=f"RWKV{version}ForCausalLM",
        settings=Settings(
            (*shared, *keys),
            **uniform(kind, mix),
            ignored=IGNORED,
            fixed={"norm": "layer_norm", "embedding_norm": True},
        ),
        rows=[
            *ROWS,
            *(same(f"model.norm.{part}", f"backbone.final_norm.{part}") for part in PARTS),
            *(same(f"model.layers.0.pre_norm.{part}", f"backbone.embedding_norm.{part}") for part in PARTS),
        ],
        block=norms({"attn_norm": "mixer_norm", "ffn_norm": "ffn_norm"}, PARTS),
        layers={kind: ("model.layers.{i}.attn.", mixer), mix: ("model.layers.{i}.ffn.", ffn)},
    )


def _stacked(theirs: Sequence[str], ours: str, shape: tuple[int, ...]) -> Row:
    """Vectors of theirs, of this shape each, are the rows of ours."""
    return Row(
        tuple(theirs),
        (ours,),
        lambda t: (torch.stack([x.flatten() for x in t]),),
        lambda t: [row.view(shape) for row in t[0]],
    )


def _low_rank(theirs: str, ours: str) -> list[Row]:
    """A projection of low rank; a bias that ours lacks is no row."""
    down, up = (
        same(f"{theirs}.lora.0.weight", f"{ours}.down.weight"),
        same(f"{theirs}.lora.2.weight", f"{ours}.up.weight"),
    )
    return [down, up, same(f"{theirs}.lora.2.bias", f"{ours}.up.bias")]


PROJECTIONS = [same(f"{name}_proj.weight") for name in "rkv"]
NORM = [same(f"g_norm.{part}", f"norm.{part}") for part in PARTS]
OUTPUT = same("o_proj.weight", "out_proj.weight")

# -------------------------------------------------------------------------------------------------------------- RWKV-7


def _mix7(layer: Any) -> list[Row]:
    low_rank = {"w": "decay", "a": "rate", "v": "value", "g": "gate"}
    return [
        # One tensor until April 2025.
        replace(_stacked([f"x_{name}" for name in "rwkvag"], "shift_mix", (1, 1, -1)), older=same("x_x", "shift_mix")),
        *(same(name) for name in ("k_k", "k_a", "r_k")),
        *PROJECTIONS,
        *(row for theirs, ours in low_rank.items() for row in _low_rank(f"{theirs}_lora", f"{ours}_proj")),
        *NORM,
        OUTPUT,
    ]


def _heads(config: Mapping[str, Any]) -> int:
    head = config.get("head_dim")
    return config["hidden_size"] // head if head else config["num_heads"]


def _value_size(config: Mapping[str, Any]) -> int:
    values = config.get("value_dim") or config["hidden_size"]
    if isinstance(values, list):
        if len(set(values)) != 1:
            raise ValueError("it differs from layer to layer")
        values = values[0]
    return values // _heads(config)


def _norm_eps(config: Mapping[str, Any]) -> float:
    return config.get("norm_eps", 1e-5) * (config["hidden_size"] // _heads(config))


RWKV7 = _architecture(
    7,
    4,
    (
        Rule("rwkv7.heads", _heads, "num_heads", lambda ours: ours["rwkv7.heads"]),
        Rule("rwkv7.heads", _heads, "head_dim", lambda ours: ours["width"] // ours["rwkv7.heads"]),
        Rule(
            "rwkv7.value_size",
            _value_size,
            "value_dim",
            lambda ours: ours["rwkv7.heads"] * ours["rwkv7.value_size"],
        ),
        Rule("rwkv7.norm_eps", _norm_eps),
        Key("decay_low_rank_dim", "rwkv7.decay_rank", 64),
        Key("a_low_rank_dim", "rwkv7.rate_rank", 64),
        Key("v_low_rank_dim", "rwkv7.value_rank", 16),
        Key("gate_low_rank_dim", "rwkv7.gate_rank", 128),
    ),
    _mix7,
    (same("x_k", "shift_mix"), same("key.weight", "k_proj.weight"), same("value.weight", "out_proj.weight")),
)

# -------------------------------------------------------------------------------------------------------------- RWKV-6

_MIX6 = (
    same("x_proj.0.linear.weight", "shift.down.weight"),
    same("x_proj.0.mu", "shift.all"),
    same("x_proj.2.weight", "shift.up.weight"),
    same("x_bias", "shift.each"),
    same("bonus"),
    *(same(f"{name}_proj.linear.weight", f"{name}_proj.weight") for name in "rkv"),
    same("g_proj.linear.weight", "gate_proj.weight"),
    *_low_rank("w_proj.linear", "decay_proj"),
    *NORM,
    OUTPUT,
)
RWKV6 = _architecture(
    6,
    3.5,
    (
        Key("num_heads", "rwkv6.heads", 4),
        per_head("rwkv6.key_size", "expand_k", 0.5),
        per_head("rwkv6.value_size", "expand_v", 1.0),
        Key("proj_low_rank_dim", "rwkv6.mix_rank", 32),
        Key("gate_low_rank_dim", "rwkv6.decay_rank", 64),
        Rule("rwkv6.norm_eps", lambda config: config.get("norm_eps", 1e-5)),
    ),
    _MIX6,
    (
        _stacked(("key.mu", "receptance.mu"), "shift_mix", (-1,)),
        same("key.linear.weight", "k_proj.weight"),
        same("receptance.linear.weight", "r_proj.weight"),
        same("value.weight", "out_proj.weight"),
    ),
)
